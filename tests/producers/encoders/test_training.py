"""Training: exact resumption, several processes, each objective, and fine-tuning of each model family."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from feature_repo import schema
from feature_repo.errors import InvalidInputError, UsageError, VitrineError
from producers.catalogue.pack import pack_images
from producers.encoders import load, whitening
from producers.encoders.checkpoint_version import read_training_products
from producers.encoders.licence import read_licence
from producers.encoders.train import TrainingSummary, train
from producers.encoders.training import training_state
from producers.encoders.training.alignment import SESSION_GAP_US, ClickArrays, find_co_clicks
from producers.encoders.training.contrastive import QUEUE_SIZE, MomentumOutputs, MomentumTowers
from producers.encoders.training.filtering import DROPPED_SHARE, filter_by_looks
from producers.encoders.training.pairs import BatchOrder, TrainingPairs
from producers.encoders.training.recipe import OBJECTIVES, Recipe
from producers.learning.encoder import train_encoder
from tests.producers.encoders import checkpoints

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[3]


pytestmark = pytest.mark.usefixtures("one_thread")


COLOURS = {"红色": (220, 30, 30), "绿色": (30, 180, 60), "蓝色": (40, 60, 220), "黑色": (15, 15, 15)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[Path | bytes]]:
    """64 images of one colour each, and titles that name the colour."""
    folder, chance = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
    titles, images = [], []
    for number in range(64):
        name = list(COLOURS)[number % len(COLOURS)]
        pixels = np.clip(np.array(COLOURS[name]) + chance.integers(-20, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
        images.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(images[-1])
        titles.append(f"{name}连衣裙女婴儿"[: 4 + number % 6])
    return titles, images


def trained(
    shop: tuple[list[str], list[Path | bytes]], folder: Path, recipe: Recipe, **options: object
) -> TrainingSummary:
    arguments: dict = {"pairs_seen": 96, "seed": 3, "progress": lambda *_: None} | options
    summary = train(*shop, folder, recipe=recipe, **arguments)
    assert summary is not None
    return summary


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(folder)}:{name}": value
        for file in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def assert_equal(first: Path, second: Path, tolerance: float) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name.endswith("num_batches_tracked"):
            continue  # counts forward passes; nothing depends on it
        torch.testing.assert_close(value, other[name], rtol=0, atol=tolerance, msg=name)


class KilledError(Exception):
    """Stands for a process that is killed in the middle of a step."""


def test_a_resumed_run_gives_the_same_weights_bit_for_bit_as_an_uninterrupted_one(shop, tmp_path: Path) -> None:
    recipe = Recipe(objectives=OBJECTIVES, batch=16, save_every=2, keep="similarity")

    def kill_at_5(what: str, done: int, total: int) -> None:
        if what == "train encoder" and done == 5:
            raise KilledError

    trained(shop, tmp_path / "uninterrupted", recipe)
    with pytest.raises(KilledError):
        trained(shop, tmp_path / "resumed", recipe, progress=kill_at_5)
    summary = trained(shop, tmp_path / "resumed", recipe)
    assert (summary.resumed_at, summary.steps) == (4, 6)
    assert_equal(tmp_path / "uninterrupted", tmp_path / "resumed", 0)
    assert not (tmp_path / "resumed" / training_state.STATE_FILE).exists()


@pytest.mark.slow
def test_a_killed_process_resumes_from_its_last_saved_state(shop, tmp_path: Path) -> None:
    recipe = Recipe(batch=16, save_every=1)
    trained(shop, tmp_path / "uninterrupted", recipe, pairs_seen=800)
    program = (
        "import sys; from pathlib import Path; from producers.encoders.train import train; "
        "from producers.encoders.training.recipe import Recipe\n"
        "if __name__ == '__main__':\n"
        f"    train({shop[0]!r}, [Path(p) for p in {[str(p) for p in shop[1]]!r}], Path({str(tmp_path / 'killed')!r}), "
        "pairs_seen=800, seed=3, recipe=Recipe(batch=16, save_every=1), progress=lambda *_: None)\n"
    )
    (tmp_path / "program.py").write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
    )
    while not (tmp_path / "killed" / training_state.STATE_FILE).exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    summary = trained(shop, tmp_path / "killed", recipe, pairs_seen=800)
    assert summary.resumed_at > 0
    assert_equal(tmp_path / "uninterrupted", tmp_path / "killed", 0)


def test_the_state_of_another_training_is_refused(shop, tmp_path: Path) -> None:
    training_state.write_state(tmp_path, "another", {})
    with pytest.raises(VitrineError, match="other data or settings"):
        trained(shop, tmp_path, Recipe(batch=16))


@pytest.mark.slow
def test_two_processes_train_the_same_weights_as_one_process_with_two_micro_batches(shop, tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from producers.encoders.train import train; "
        "from producers.encoders.training.recipe import Recipe\n"
        "if __name__ == '__main__':\n"
        f"    train({shop[0]!r}, [Path(p) for p in {[str(p) for p in shop[1]]!r}], Path({str(tmp_path / 'two')!r}), "
        "pairs_seen=96, seed=3, recipe=Recipe(objectives=('contrastive', 'words', 'momentum', 'language'), batch=16), "
        "progress=lambda *_: None)\n"
    )
    (tmp_path / "program.py").write_text(program)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            str(tmp_path / "program.py"),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    objectives = ("contrastive", "words", "momentum", "language")
    trained(shop, tmp_path / "one", Recipe(objectives=objectives, batch=16, accumulate=2))
    # The gradients are summed in another order, and Adam magnifies the rounding errors of small ones.
    assert_equal(tmp_path / "one", tmp_path / "two", 1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES[1:])
def test_every_objective_can_be_trained_and_reports_its_own_loss(objective: str, shop, tmp_path: Path) -> None:
    summary = trained(shop, tmp_path, Recipe(objectives=("contrastive", objective), batch=16), pairs_seen=32)
    assert np.isfinite(summary.loss)
    assert summary.losses.keys() == {"contrastive", objective} - {"momentum"}
    assert (tmp_path / "language").exists() == (objective == "language")
    assert load(str(tmp_path)).encode_texts(["红色"]).shape == (1, 128)


@pytest.mark.parametrize("family", ["clip", "chinese_clip", "siglip", "blip", "blip_retrieval"])
def test_a_checkpoint_of_any_family_can_be_fine_tuned_and_loaded_again(family: str, shop, tmp_path: Path) -> None:
    make = checkpoints.blip_retrieval if family == "blip_retrieval" else checkpoints.IMAGE_TEXT[family]
    make(tmp_path / "from")
    recipe = Recipe(objectives=OBJECTIVES, batch=16, learning_rate=1e-3)
    trained(shop, tmp_path / "to", recipe, checkpoint=str(tmp_path / "from"), pairs_seen=32)
    before, after = (load(str(tmp_path / name)) for name in ("from", "to"))
    assert after.dim == before.dim
    assert np.abs(after.encode_texts(["红色"]) - before.encode_texts(["红色"])).max() > 1e-4


def test_a_checkpoint_with_an_unsupported_image_processor_is_refused(shop, tmp_path: Path) -> None:
    checkpoints.dual_encoder(tmp_path / "from")
    with pytest.raises(VitrineError, match="more than resize and crop"):
        trained(shop, tmp_path / "to", Recipe(), checkpoint=str(tmp_path / "from"))


def test_images_in_lmdb_train_the_same_weights_as_images_in_files(shop, tmp_path: Path) -> None:
    titles, images = shop
    columns = {"product_id": [f"p{n}" for n in range(64)], "title": titles, "image": [str(path) for path in images]}
    nothing = {name: pa.nulls(64, kind) for name, kind in (("category", pa.string()), ("brand", pa.string()))}
    when = pa.repeat(pa.scalar(NOW, schema.TIMESTAMP), 64)
    (tmp_path / "files").mkdir()
    table = pa.table(columns | nothing | {"price": pa.nulls(64, pa.float64()), "updated_at": when})
    pq.write_table(table, tmp_path / "files" / "products.parquet")
    packed = pack_images(tmp_path / "files" / "products.parquet", tmp_path / "packed", NOW)
    assert packed.images == 64
    for data in ("files", "packed"):
        summary = train_encoder(
            tmp_path / data,
            tmp_path / f"of {data}",
            pairs_seen=96,
            seed=3,
            progress=lambda *_: None,
            recipe=Recipe(batch=16),
            name="acme/looks" if data == "packed" else None,
            licence="ours alone" if data == "packed" else None,
        )
        assert summary is not None
        assert (summary.pairs, summary.left_out) == (64, 0)
    trained_on = read_training_products(tmp_path / "of files")
    assert trained_on is not None
    assert trained_on.to_pylist() == columns["product_id"]
    assert load(str(tmp_path / "of files")).version.startswith("of files@")
    assert load(str(tmp_path / "of packed")).version.startswith("acme/looks@")
    assert [read_licence(str(tmp_path / folder)) for folder in ("of files", "of packed")] == [None, "ours alone"]
    assert_equal(tmp_path / "of files", tmp_path / "of packed", tolerance=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"objectives": ("contrastive", "magic")}, "'magic'"),
        ({"objectives": ("words",)}, "must include contrastive"),
        ({"precision": "int4"}, "'int4'"),
        ({"keep": "all"}, "'all'"),
        ({"align": -0.1}, "negative"),
        ({"crop": 0.0}, "--crop 0.0"),
        ({"jitter": 1.5}, "--jitter 1.5"),
    ],
)
def test_an_invalid_recipe_is_refused_when_it_is_created(wrong: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe(**wrong)


def test_a_batch_that_does_not_divide_into_equal_parts_is_refused() -> None:
    assert Recipe(batch=64, accumulate=4).micro_batch_size(2) == 8
    with pytest.raises(UsageError, match="equal parts"):
        Recipe(batch=64, accumulate=3).micro_batch_size(1)


def test_an_epoch_has_every_row_once_and_steps_can_be_requested_in_any_order() -> None:
    order, again = BatchOrder(np.arange(12), 4, seed=1), BatchOrder(np.arange(12), 4, seed=1)
    late = again.select_rows(4)
    steps = [order.select_rows(number) for number in range(6)]
    np.testing.assert_array_equal(late, steps[4])
    assert sorted(np.concatenate(steps[:3])) == sorted(np.concatenate(steps[3:])) == list(range(12))


def test_the_queue_has_the_newest_pairs_first_and_drops_the_oldest(tmp_path: Path) -> None:
    class Nothing(torch.nn.Module):
        """Towers without weights."""

    copy = MomentumTowers(Nothing(), 2)  # type: ignore[arg-type]
    for number in range(QUEUE_SIZE // 4 + 2):
        copy.enqueue(MomentumOutputs(torch.full((4, 2), number), torch.full((4, 2), -number), torch.full((4,), number)))
    assert copy.same_queue[:4].tolist() == [QUEUE_SIZE // 4 + 1] * 4
    assert copy.same_queue[-1] == 2
    torch.testing.assert_close(copy.image_queue[:, 0], -copy.text_queue[:, 1])


def test_the_looks_filter_leaves_out_blank_images_and_short_titles() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    pixels[1] = 200
    tokens = np.array([[2, 9, 9, 3], [2, 9, 9, 3], [2, 9, 3, 0]])
    pairs = TrainingPairs(pixels, tokens, (tokens > 0).astype(np.int64), np.arange(3), np.array([0, 1, 2, 3, 4]), 4)
    assert filter_by_looks(pairs).tolist() == [True, False, False]
    pixels[0] = 200
    with pytest.raises(InvalidInputError, match="no pair of an image and a title is left to train on: in each of 3"):
        filter_by_looks(pairs)


def test_the_similarity_filter_leaves_out_its_share_of_the_pairs(shop, tmp_path: Path) -> None:
    summary = trained(shop, tmp_path, Recipe(batch=16, keep="similarity"))
    assert summary.kept == pytest.approx(len(shop[0]) * (1 - DROPPED_SHARE), abs=1.5)


def test_co_clicks_are_consecutive_clicks_of_one_session_on_two_products() -> None:
    users = np.array([0, 0, 0, 1, 1, 0, 0])
    products = np.array([5, 6, 7, 6, 6, 8, -1])
    times = np.array([0, 1, 2 + SESSION_GAP_US, 0, 1, 3 + SESSION_GAP_US, 4 + SESSION_GAP_US])
    near = find_co_clicks(ClickArrays(users, products, times))
    assert list(zip(near.first, near.second, strict=True)) == [(5, 6), (7, 8)]


@pytest.mark.slow
def test_products_that_are_clicked_together_get_similar_vectors(shop, tmp_path: Path) -> None:
    colour = np.array([next(place for place, name in enumerate(COLOURS) if name in title) for title in shop[0]])
    liked = np.flatnonzero(colour < 2)  # users click red and green products
    drawn = np.random.default_rng(0).choice(liked, 1024)
    clicked = ClickArrays(users=np.repeat(np.arange(512), 2), product_rows=drawn, timestamps_us=np.tile([0, 1], 512))

    def closeness(folder: Path, given: ClickArrays | None) -> float:
        trained(shop, folder, Recipe(batch=32, align=1.0), pairs_seen=1600, clicked=given)
        encoder = load(str(folder))
        image = encoder.encode_images([Image.new("RGB", (32, 32), rgb) for rgb in COLOURS.values()])
        fused = image + encoder.encode_texts([f"{name}连衣裙" for name in COLOURS])
        red, green, blue, _ = fused / np.linalg.norm(fused, axis=1, keepdims=True)
        return float(red @ green - red @ blue)

    assert closeness(tmp_path / "with", clicked) > closeness(tmp_path / "without", None) + 0.2


def test_without_an_alignment_weight_clicks_change_only_the_space_of_fused_vectors(shop, tmp_path: Path) -> None:
    titles, images = shop[0] * 5, shop[1] * 5  # enough to estimate the spread
    liked = np.random.default_rng(0).permuted(np.arange(len(titles)).reshape(4, -1, order="F"), axis=1)[:, :20]
    clicked = ClickArrays(np.repeat(np.arange(200), 20), np.tile(liked, (50, 1)).ravel(), np.zeros(4000, np.int64))
    without = trained((titles, images), tmp_path / "without", Recipe(batch=16))
    given = trained((titles, images), tmp_path / "given", Recipe(batch=16), clicked=clicked)
    assert (without.has_preferences, given.has_preferences, given.co_clicks) == (None, True, 0)
    one, other = weights(tmp_path / "without"), weights(tmp_path / "given")
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert differing == {f"{whitening.FILE}:axes"}


def test_too_few_clicks_leave_the_space_unchanged_and_are_reported(shop, tmp_path: Path) -> None:
    few = ClickArrays(np.zeros(3, np.int64), np.arange(3), np.arange(3))
    summary = trained(shop, tmp_path, Recipe(batch=16), clicked=few)
    assert summary.has_preferences is False
    assert "the fused space is not weighted by clicks" in str(summary)


def test_a_log_without_two_clicks_in_one_session_cannot_be_aligned_with(shop, tmp_path: Path) -> None:
    lonely = ClickArrays(np.arange(3), np.arange(3), np.arange(3))
    with pytest.raises(VitrineError, match="nothing to align"):
        trained(shop, tmp_path, Recipe(batch=16, align=0.3), clicked=lonely)
