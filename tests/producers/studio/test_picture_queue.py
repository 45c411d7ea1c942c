"""The queue of generated pictures: places, progress, bounds, and what a restart, a kill and `produce forget` leave."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.server.errors import RequestError
from feature_repo.serving_limits import PictureLimits
from producers import maintenance
from producers.studio.metrics import StudioMetrics
from producers.studio.picture_model import PictureModel
from producers.studio.picture_queue import CUT, STOPPED, JobProgress, PictureQueue
from producers.studio.picture_request import PictureRequest, parse_json
from producers.studio.picture_store import FOLDER, PictureStore, forget_pictures
from producers.studio.stable_diffusion import StableDiffusionModel
from tests.producers.catalogue.shop import open_deployment
from tests.producers.text_to_image.tiny_pipeline import save_tiny_pipeline

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionModel:
    return StableDiffusionModel(save_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny"))


class SlowedModel:
    """A model that waits before each step until the test lets it go on."""

    def __init__(self, model: StableDiffusionModel) -> None:
        self.model = model
        self.name, self.height, self.width, self.side_unit = model.name, model.height, model.width, model.side_unit
        self.is_cut = model.is_cut
        self.steps = threading.Semaphore(0)

    def generate(self, sentence: str, *, on_step: Callable[[int], None], **options: Any) -> Any:
        def wait(step: int) -> None:
            assert self.steps.acquire(timeout=30)
            on_step(step)

        return self.model.generate(sentence, on_step=wait, **options)


@contextmanager
def opened(
    folder: Path, model: PictureModel, now: datetime = NOW, limits: PictureLimits | None = None
) -> Iterator[PictureQueue]:
    queue = PictureQueue(
        PictureStore(folder),
        model,
        limits=limits or PictureLimits(),
        clock=lambda: now,
        metrics=StudioMetrics(),
    )
    try:
        yield queue
    finally:
        queue.close()


def ask(sentence: str = "a pink romper", **options: Any) -> PictureRequest:
    return PictureRequest(sentence=sentence, **{"steps": 2, **options})


def wait_for(queue: PictureQueue, job_id: str, *states: str) -> JobProgress:
    for _ in range(2_000):
        progress = queue.find(job_id)
        if progress.job.state in states:
            return progress
        time.sleep(0.01)
    raise AssertionError(f"{job_id} is {progress.job.state}")


def read_pixels(queue: PictureQueue, job_id: str, number: int) -> Image.Image:
    import io

    return Image.open(io.BytesIO(queue.store.read_picture(job_id, number)))


def test_the_same_seed_gives_the_same_picture_and_the_next_seed_another(
    tmp_path: Path, model: StableDiffusionModel
) -> None:
    with opened(tmp_path, model) as queue:
        three = queue.submit(ask(seed=7, count=3)).job.id
        again = queue.submit(ask(seed=8)).job.id
        done = wait_for(queue, three, "done")
        wait_for(queue, again, "done")
        pictures = [read_pixels(queue, three, number) for number in range(3)]
        assert (done.job.pictures, done.step, done.total_steps, done.place) == (3, 6, 6, 0)
        assert {picture.size for picture in pictures} == {(model.width, model.height)}
        assert len({picture.tobytes() for picture in pictures}) == 3
        assert read_pixels(queue, again, 0).tobytes() == pictures[1].tobytes()


def test_jobs_wait_in_their_order_and_more_than_may_wait_are_refused(
    tmp_path: Path, model: StableDiffusionModel
) -> None:
    slowed = SlowedModel(model)
    with opened(tmp_path, slowed, limits=PictureLimits(queue_size=2)) as queue:
        first = queue.submit(ask()).job.id
        wait_for(queue, first, "running")
        second, third = (queue.submit(ask(seed=seed)).job.id for seed in (1, 2))
        assert [queue.find(one).place for one in (first, second, third)] == [0, 1, 2]
        with pytest.raises(RequestError, match="2 jobs wait") as refused:
            queue.submit(ask())
        assert refused.value.status == 503
        slowed.steps.release()
        while queue.find(first).step < 1:
            time.sleep(0.01)
        assert queue.cancel(second).job.state == "cancelled"
        assert queue.find(third).place == 1
        slowed.steps.release(10)
        assert wait_for(queue, third, "done").job.seed == 2
        assert [one.job.id for one in queue.list_jobs()] == [third, second, first]


def test_cancelling_a_running_job_ends_it_after_the_step_and_keeps_finished_pictures(
    tmp_path: Path, model: StableDiffusionModel
) -> None:
    slowed = SlowedModel(model)
    with opened(tmp_path, slowed) as queue:
        job = queue.submit(ask(count=3)).job.id
        slowed.steps.release(3)
        while queue.find(job).step < 3:
            time.sleep(0.01)
        queue.cancel(job)
        slowed.steps.release(10)
        ended = wait_for(queue, job, "cancelled")
        assert ended.job.pictures == 1
        assert read_pixels(queue, job, 0).size == (model.width, model.height)
        with pytest.raises(NotFoundError):
            queue.store.read_picture(job, 1)
        assert queue.cancel(job).job.state == "cancelled"


def test_after_a_kill_the_running_job_is_interrupted_and_the_waiting_ones_go_on(
    tmp_path: Path, model: StableDiffusionModel
) -> None:
    slowed = SlowedModel(model)
    killed = PictureQueue(
        PictureStore(tmp_path), slowed, limits=PictureLimits(), clock=lambda: NOW, metrics=StudioMetrics()
    )
    running, waiting = (killed.submit(ask(seed=seed, count=2)).job.id for seed in (1, 2))
    slowed.steps.release(3)
    while killed.find(running).step < 3:
        time.sleep(0.01)
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}  # as a kill leaves them
    slowed.steps.release(100)
    wait_for(killed, waiting, "done")
    killed.close()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            file.write_bytes(files[file]) if file in files else file.unlink()
    with opened(tmp_path, model) as queue:
        assert (queue.find(running).job.state, queue.find(running).job.message) == ("interrupted", STOPPED)
        assert queue.find(running).job.pictures == 1
        assert read_pixels(queue, running, 0)
        assert wait_for(queue, waiting, "done").job.pictures == 2


def test_closing_interrupts_the_running_job_and_keeps_the_waiting_ones(
    tmp_path: Path, model: StableDiffusionModel
) -> None:
    slowed = SlowedModel(model)
    with opened(tmp_path, slowed) as queue:
        running, waiting = (queue.submit(ask(seed=seed)).job.id for seed in (1, 2))
        wait_for(queue, running, "running")
        threading.Timer(0.2, slowed.steps.release, (1,)).start()
    states = {job.id: (job.state, job.message) for job in PictureStore(tmp_path).load()}
    assert states == {running: ("interrupted", STOPPED), waiting: ("queued", "")}


def test_the_history_is_bounded_by_count_and_age(tmp_path: Path, model: StableDiffusionModel) -> None:
    limits = PictureLimits(max_jobs=2, max_age_days=10)
    with opened(tmp_path, model, limits=limits) as queue:
        jobs = [queue.submit(ask(seed=seed)).job.id for seed in range(4)]
        wait_for(queue, jobs[-1], "done")
        while len(queue.list_jobs()) > 2:
            time.sleep(0.01)
        assert [one.job.id for one in queue.list_jobs()] == [jobs[3], jobs[2]]
        assert {one.name for one in (tmp_path / FOLDER).iterdir()} == {*jobs[2:]}
    with opened(tmp_path, model, NOW + timedelta(days=11), limits) as queue:
        assert queue.list_jobs() == []
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_forget_deletes_the_pictures_of_a_product_and_stops_their_generation(
    tmp_path: Path, model: StableDiffusionModel
) -> None:
    settings = open_deployment(tmp_path)
    settings.table("x").mkdir(parents=True)
    slowed = SlowedModel(model)
    with opened(settings.local, slowed) as queue:
        running = queue.submit(ask(product_id="p1", count=8)).job.id
        waiting = queue.submit(ask(product_id=" p1\u200b")).job.id  # the same id once it is normalised
        other = queue.submit(ask(product_id="p2")).job.id
        slowed.steps.release(2)
        while queue.find(running).step < 2:
            time.sleep(0.01)
        counted = maintenance.forget(settings, products=["p1"], users=[], dry_run=True)
        assert counted.offline == {"studio/pictures": 2}
        assert queue.find(waiting).place == 1
        assert maintenance.forget(settings, products=["p1"], users=[]).offline == counted.offline
        slowed.steps.release(100)
        wait_for(queue, other, "done")
        assert [one.job.id for one in queue.list_jobs()] == [other]
        with pytest.raises(NotFoundError):
            queue.find(running)
    assert [one.name for one in (settings.local / FOLDER).iterdir()] == [other]


def test_a_job_that_fails_says_so_and_the_next_one_is_generated(tmp_path: Path, model: StableDiffusionModel) -> None:
    with opened(tmp_path, model) as queue:
        bad = queue.submit(ask(steps=10_000)).job.id  # beyond the bound of the model, which the routes check
        good = queue.submit(ask()).job.id
        failed = wait_for(queue, bad, "failed").job
        assert "10000 steps" in failed.message
        wait_for(queue, good, "done")


def test_a_sentence_beyond_the_tokenizers_length_is_cut_and_the_job_says_so(
    tmp_path: Path, model: StableDiffusionModel
) -> None:
    with opened(tmp_path, model) as queue:
        long, short = (queue.submit(ask(text)).job.id for text in ("a pink romper with dots " * 10, "a hat"))
        assert wait_for(queue, long, "done").job.message == CUT
        assert wait_for(queue, short, "done").job.message == ""


def test_a_job_that_was_deleted_is_not_written_again(tmp_path: Path, model: StableDiffusionModel) -> None:
    with opened(tmp_path, model) as queue:
        job = queue.submit(ask()).job
        wait_for(queue, job.id, "done")
        queue.delete(job.id)
        with pytest.raises(NotFoundError):
            queue.delete(job.id)
        assert not queue.store.save(replace(job, state="done"))
        assert not queue.store.write_picture(job.id, 0, b"x")
        assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_side_that_the_model_cannot_generate_is_refused(tmp_path: Path, model: StableDiffusionModel) -> None:
    with opened(tmp_path, model) as queue, pytest.raises(InvalidInputError, match="height: 17 pixels; expected a mult"):
        queue.submit(ask(height=17))


BAD = {
    "an empty sentence": ('{"sentence": " "}', "sentence: it is empty"),
    "no sentence": ("{}", "sentence: Field required"),
    "10,000 characters": ('{"sentence": "' + "a" * 10_000 + '"}', "sentence: 10,000 characters; at most 500"),
    "two lines": ('{"sentence": "a\\nb"}', "cannot be printed"),
    "too many steps": ('{"sentence": "a", "steps": 101}', "steps: 101 steps; at most 100"),
    "no steps": ('{"sentence": "a", "steps": 0}', "steps: Input should be greater"),
    "too many pictures": ('{"sentence": "a", "count": 9}', "count: 9 pictures; at most 8"),
    "too large": ('{"sentence": "a", "width": 4096}', "width: 4,096 pixels; at most 768"),
    "guidance": ('{"sentence": "a", "guidance": 21}', "guidance: 21.0 at the scale; at most 20"),
    "NaN": ('{"sentence": "a", "guidance": NaN}', "guidance: "),
    "a negative seed": ('{"sentence": "a", "seed": -1}', "seed: "),
    "another field": ('{"sentence": "a", "model": "x"}', "model: Extra inputs"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_one_line(case: str) -> None:
    request, message = BAD[case]
    with pytest.raises(InvalidInputError, match=message) as refused:
        parse_json(request.encode(), PictureLimits())
    assert "\n" not in str(refused.value)


def block(file: Path) -> None:
    """Put a folder with content where a file is to be written, so that it cannot be, by any user."""
    file.unlink(missing_ok=True)
    (file / "content").mkdir(parents=True)


@pytest.mark.parametrize("name", ["0.png", "job.json"])
def test_a_job_whose_files_cannot_be_written_ends_and_the_next_one_is_generated(
    tmp_path: Path, model: StableDiffusionModel, name: str
) -> None:
    slowed = SlowedModel(model)
    with opened(tmp_path, slowed) as queue:
        blocked, good = (queue.submit(ask(seed=seed)).job.id for seed in (1, 2))
        wait_for(queue, blocked, "running")
        block(tmp_path / FOLDER / blocked / name)
        slowed.steps.release(10)
        wait_for(queue, good, "done")
        ended = queue.find(blocked).job
        assert (ended.state, ended.message) == (
            ("failed", "its files cannot be written: Is a directory") if name == "0.png" else ("done", "")
        )
        assert queue.is_running


def test_a_job_that_cannot_be_kept_is_not_in_the_queue(tmp_path: Path, model: StableDiffusionModel) -> None:
    with opened(tmp_path, model) as queue:
        (tmp_path / FOLDER).parent.mkdir()
        (tmp_path / FOLDER).write_text("no folder")
        with pytest.raises(FileExistsError):
            queue.submit(ask())
        (tmp_path / FOLDER).unlink()
        assert queue.list_jobs() == []
        wait_for(queue, queue.submit(ask()).job.id, "done")


def test_a_job_that_cannot_be_deleted_stays_in_the_list(tmp_path: Path, model: StableDiffusionModel) -> None:
    with opened(tmp_path / "local", model) as queue:
        job = queue.submit(ask(product_id="p1")).job.id
        wait_for(queue, job, "done")
        (tmp_path / "local" / FOLDER / job).rename(tmp_path / "moved")
        (tmp_path / "local" / FOLDER / job).symlink_to(tmp_path / "moved")  # nobody can delete it as a folder
        with pytest.raises(OSError, match="symbolic link"):
            queue.delete(job)
        assert [one.job.id for one in queue.list_jobs()] == [job]
        with pytest.raises(OSError, match="symbolic link"):  # `produce forget` must not say that it is gone
            forget_pictures(tmp_path / "local", ["p1"])


def test_the_models_own_side_counts_against_the_bound(tmp_path: Path, model: StableDiffusionModel) -> None:
    limits = PictureLimits(max_side=8)
    with opened(tmp_path, model, limits=limits) as queue:
        with pytest.raises(InvalidInputError, match="height: 16 pixels; at most 8"):
            queue.submit(ask())
        assert queue.submit(ask(height=8, width=8)).job.height == 8


def test_a_blank_product_id_is_refused_because_forget_could_not_name_it(
    tmp_path: Path, model: StableDiffusionModel
) -> None:
    with opened(tmp_path, model) as queue, pytest.raises(InvalidInputError, match="product_id: it has no visible"):
        queue.submit(ask(product_id=" \u200b"))


@pytest.mark.parametrize("number", ["-1", "00", "1", "9" * 300, "9" * 5_000, "0/../0", ""])
def test_a_number_of_no_picture_is_not_found(tmp_path: Path, model: StableDiffusionModel, number: str) -> None:
    with opened(tmp_path, model) as queue:
        job = queue.submit(ask()).job.id
        wait_for(queue, job, "done")
        assert queue.store.read_picture(job, "0") == queue.store.read_picture(job, 0)
        with pytest.raises(NotFoundError):
            queue.store.read_picture(job, number)
