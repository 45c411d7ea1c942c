"""Producers that are killed, or started twice: the tables are those of one undisturbed run."""

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
PRODUCTS, PICTURES = 90, 24
Undisturbed = Callable[[int], tuple[Settings, float]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        Image.new("RGB", (40, 40), (number * 10, 90, 200)).save(folder / f"{number}.png")
    (folder / "3.png").write_text("no picture")
    return folder


def day(folder: Path, pictures: Path, number: int) -> Path:
    """A day's products: a third have another title than the day before, some are new, some gone, a few rows are bad."""
    rows = [
        GOOD
        | {
            "product_id": f"p{row}",
            "title": f"红色连衣裙 {row if row % 3 else (row, number)}",
            "image": str(pictures / f"{row % PICTURES}.png") if row % 4 else None,
            "updated_at": f"2026-02-0{1 if row % 3 else 1 + number}T00:00:00Z",
        }
        for row in range(3 * number, PRODUCTS + 10 * number)
    ]
    rows += [GOOD | {"product_id": None}, GOOD | {"product_id": "x", "updated_at": "soon"}]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / f"day{number}.parquet")
    return folder / f"day{number}.parquet"


def state(store: Settings) -> dict[str, Any]:
    """What was made of the days, each row as often as it is there, whatever the order."""

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
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pictures: Path, encoder: Path) -> Undisturbed:
    """The store after so many days, and how long the longest took; made once."""

    @cache
    def made(days: int) -> tuple[Settings, float]:
        folder, takes = tmp_path_factory.mktemp("whole"), 0.0
        store = open_deployment(folder)
        for number in range(days):
            with runs.running(store.file, day(folder, pictures, number), encoder, NOW + number * DAY) as (_, pipe):
                began = time.monotonic()
                assert pipe.recv() == "done"
                takes = max(takes, time.monotonic() - began)
        return store, takes

    return made


def encoded(store: Settings) -> int:
    """Contents that went through the encoder, as far as the ledger knows: of a killed run, up to its last commit."""
    counts = [run.counts for run in run_log.read_runs(store, step="embeddings")]
    return sum(each.get("pictures", 0) + each.get("titles", 0) for each in counts)


@pytest.mark.parametrize(("kills", "days"), [(5, 1), pytest.param(50, 6, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_run_again_it_leaves_the_tables_of_an_undisturbed_run(
    tmp_path: Path, pictures: Path, encoder: Path, undisturbed: Undisturbed, kills: int, days: int
) -> None:
    whole, takes = undisturbed(days)
    (tmp_path / "killed").mkdir()
    store, chance, killed = open_deployment(tmp_path / "killed"), random.Random(kills), 0
    wanted = [(number + 1) * kills // days for number in range(days)]
    for number in range(days):
        products = day(tmp_path / "killed", pictures, number)
        while True:
            with runs.running(store.file, products, encoder, NOW + number * DAY) as (_, pipe):
                if killed >= wanted[number]:
                    assert pipe.recv() == "done"
                    break
                if pipe.poll(chance.uniform(0, takes)):
                    assert pipe.recv() == "done"
                else:
                    killed += 1
    assert state(store) == state(whole)
    assert max(state(store)["embeddings"].values()) == 1
    assert encoded(store) <= encoded(whole)
    endings = Counter(run.ending for run in run_log.read_runs(store))
    assert set(endings) <= {run_log.KILLED, run_log.DONE}
    assert endings[run_log.KILLED] > 0


def test_two_started_at_once_do_no_harm(
    tmp_path: Path, pictures: Path, encoder: Path, undisturbed: Undisturbed
) -> None:
    whole, _ = undisturbed(1)
    (tmp_path / "twice").mkdir()
    store = open_deployment(tmp_path / "twice")
    asked = store.file, day(tmp_path / "twice", pictures, 0), encoder, NOW
    with runs.running(*asked) as (_, one), runs.running(*asked) as (_, other):
        said = [one.recv(), other.recv()]
    assert "done" in said
    assert all(each == "done" or "is at work on" in each for each in said)
    assert state(store) == state(whole)


def test_two_at_once_that_see_no_lock_of_each_other_add_each_row_once(
    tmp_path: Path, pictures: Path, encoder: Path, undisturbed: Undisturbed
) -> None:
    """As on a file system that carries no locks: the ledger's folder of locks is another for each."""
    whole, _ = undisturbed(1)
    (tmp_path / "twice").mkdir()
    store = open_deployment(tmp_path / "twice")
    products = day(tmp_path / "twice", pictures, 0)
    with (
        runs.running(store.file, products, encoder, NOW, locks="one") as (_, one),
        runs.running(store.file, products, encoder, NOW, locks="other") as (_, other),
    ):
        assert [one.recv(), other.recv()] == ["done", "done"]
    assert state(store) == state(whole)


def test_the_open_decoding_pool_of_a_killed_run_end_with_it() -> None:
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
        assert time.monotonic() < waited_until, "they outlive it"
        time.sleep(0.05)
