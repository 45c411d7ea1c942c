"""Producers that are killed or started twice leave the tables of one undisturbed run."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from feature_repo import run_log, schema
from feature_repo.config import Settings
from feature_repo.offline import delta, quarantine
from tests.producers.catalogue.shop import GOOD, open_deployment
from tests.producers.embeddings import runs

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
KEYS = ["product_id", "event_timestamp", "image_hash", "title_hash", "has_image", "has_text", "encoder_version"]
PRODUCTS, IMAGES = 90, 24
Undisturbed = Callable[[int], tuple[Settings, float]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        Image.new("RGB", (40, 40), (number * 10, 90, 200)).save(folder / f"{number}.png")
    (folder / "3.png").write_text("not an image")
    return folder


def day(folder: Path, images: Path, number: int) -> Path:
    """Write a day's products. A third have a new title; some are new, some are gone, and a few rows are invalid."""
    rows = [
        GOOD
        | {
            "product_id": f"p{row}",
            "title": f"红色连衣裙 {row if row % 3 else (row, number)}",
            "image": str(images / f"{row % IMAGES}.png") if row % 4 else None,
            "updated_at": f"2026-02-0{1 if row % 3 else 1 + number}T00:00:00Z",
        }
        for row in range(3 * number, PRODUCTS + 10 * number)
    ]
    rows += [GOOD | {"product_id": None}, GOOD | {"product_id": "x", "updated_at": "soon"}]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / f"day{number}.parquet")
    return folder / f"day{number}.parquet"


def state(store: Settings) -> dict[str, Any]:
    """Return the rows of the tables with their counts, regardless of order."""

    def rows(table: str, columns: list[str]) -> Counter[tuple[Any, ...]]:
        path = store.table(table)
        return (
            Counter(zip(*delta.read(path, columns).to_pydict().values(), strict=True))
            if delta.exists(path)
            else Counter()
        )

    refused = [(row["step"], row["row_id"], row["reason"]) for row in quarantine.read(store).to_pylist()]
    return {
        "versions": rows(schema.CATALOGUE_TABLE, ["product_id", "event_timestamp", "fingerprint"]),
        "embeddings": rows(schema.EMBEDDING_TABLE, KEYS),
        "active": rows(schema.ACTIVE_TABLE, ["product_id", "active"]),
        "quarantine": Counter(refused),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, images: Path, encoder: Path) -> Undisturbed:
    """Return the store after a number of undisturbed days, and the seconds of the longest day; created once."""

    @cache
    def run_days(days: int) -> tuple[Settings, float]:
        folder, seconds = tmp_path_factory.mktemp("expected"), 0.0
        store = open_deployment(folder)
        for number in range(days):
            with runs.running(store.file, day(folder, images, number), encoder, NOW + number * DAY) as (_, pipe):
                began = time.monotonic()
                assert pipe.recv() == "done"
                seconds = max(seconds, time.monotonic() - began)
        return store, seconds

    return run_days


def encoded(store: Settings) -> int:
    """Return how many contents were encoded according to the run log; of a killed run, up to its last commit."""
    counts = [run.counts for run in run_log.read_runs(store, step="embeddings")]
    return sum(each.get("pictures", 0) + each.get("titles", 0) for each in counts)


@pytest.mark.parametrize(("kills", "days"), [(2, 1), pytest.param(50, 6, marks=pytest.mark.slow)])
def test_runs_killed_at_random_and_repeated_leave_the_tables_of_an_undisturbed_run(
    tmp_path: Path, images: Path, encoder: Path, undisturbed: Undisturbed, kills: int, days: int
) -> None:
    expected, seconds = undisturbed(days)
    (tmp_path / "killed").mkdir()
    store, rng, killed = open_deployment(tmp_path / "killed"), random.Random(days), 0
    kills_until = [(number + 1) * kills // days for number in range(days)]
    for number in range(days):
        products = day(tmp_path / "killed", images, number)
        while True:
            with runs.running(store.file, products, encoder, NOW + number * DAY) as (_, pipe):
                if killed >= kills_until[number]:
                    assert pipe.recv() == "done"
                    break
                while not killed and not run_log.read_runs(store) and not pipe.poll(0.001):
                    pass  # the first kill comes after a run is recorded, so that one is recorded as killed
                if pipe.poll(rng.uniform(0, seconds)):
                    assert pipe.recv() == "done"
                else:
                    killed += 1
    assert state(store) == state(expected)
    assert max(state(store)["embeddings"].values()) == 1
    assert encoded(store) <= encoded(expected)
    endings = Counter(run.ending for run in run_log.read_runs(store))
    assert set(endings) <= {run_log.KILLED, run_log.DONE}
    assert endings[run_log.KILLED] > 0


def test_two_runs_started_at_once_leave_the_tables_of_one(
    tmp_path: Path, images: Path, encoder: Path, undisturbed: Undisturbed
) -> None:
    expected, _ = undisturbed(1)
    (tmp_path / "twice").mkdir()
    store = open_deployment(tmp_path / "twice")
    arguments = store.file, day(tmp_path / "twice", images, 0), encoder, NOW
    with runs.running(*arguments) as (_, one), runs.running(*arguments) as (_, other):
        messages = [one.recv(), other.recv()]
    assert "done" in messages
    assert all(each == "done" or "is running on" in each for each in messages)
    assert state(store) == state(expected)


def test_two_runs_that_do_not_see_each_others_lock_add_each_row_once(
    tmp_path: Path, images: Path, encoder: Path, undisturbed: Undisturbed
) -> None:
    """Two lock folders stand for a file system without locks."""
    expected, _ = undisturbed(1)
    (tmp_path / "twice").mkdir()
    store = open_deployment(tmp_path / "twice")
    products = day(tmp_path / "twice", images, 0)
    with (
        runs.running(store.file, products, encoder, NOW, locks="one") as (_, one),
        runs.running(store.file, products, encoder, NOW, locks="other") as (_, other),
    ):
        assert [one.recv(), other.recv()] == ["done", "done"]
    assert state(store) == state(expected)


def test_the_decoding_processes_of_a_killed_run_end_with_it() -> None:
    program = (
        "import time\n"
        "from producers.encoders.image_loader import open_decoding_pool\n"
        "if __name__ == '__main__':\n"
        "    with open_decoding_pool(2) as pool:\n"
        "        print(*set(pool.map(runs.pid, [0.3] * 4)), flush=True)\n"
        "        time.sleep(60)\n"
    ).replace("import time\n", "import time\nfrom tests.producers.embeddings import pids as runs\n", 1)
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(number) for number in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    parent.wait()
    waited_until = time.monotonic() + 20
    while any(Path(f"/proc/{worker}/exe").exists() for worker in workers):
        assert time.monotonic() < waited_until, "the workers outlive the run"
        time.sleep(0.05)
