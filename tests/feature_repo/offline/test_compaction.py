"""Small files are merged while others read and write, and while the writer is killed."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import pytest

from feature_repo.location import BucketPath, Location
from feature_repo.offline import delta, delta_files, retention
from tests.processes import begun

ROWS = 5
"""Rows of a commit."""


def rows_of(commit: int) -> pa.Table:
    return pa.table({"product_id": [f"p{commit}"] * ROWS, "commit": [commit] * ROWS})


def count_files(path: Location) -> int:
    return len(delta_files.list_files(delta.open_table(path)))


def read_commits(path: Location) -> list[int]:
    """Return the numbers of the commits, ascending; every row of each must be there."""
    commits = sorted(delta.read(path)["commit"].to_pylist())
    assert commits[::ROWS] == commits[ROWS - 1 :: ROWS], "a commit is there once and whole"
    return commits[::ROWS]


def test_the_number_of_files_stays_bounded_and_large_files_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SMALL_FILES", 4)
    monkeypatch.setattr(retention, "COMPACTED_BYTES", 6_000)
    monkeypatch.setattr(retention, "SMALL_BYTES", 5_000)
    path = tmp_path / "table"
    delta.append(path, pa.table({"product_id": [str(random.random()) for _ in range(1_000)], "commit": [-1] * 1_000}))
    (large,) = delta_files.list_files(delta.open_table(path))
    for commit in range(10):
        delta.append(path, rows_of(commit))
        assert retention.compact_small_files(path) == (commit % 3 == 0 and commit > 0)
    assert large in delta_files.list_files(delta.open_table(path))
    assert count_files(path) == 2
    assert delta.open_dataset(path).count_rows() == 1_000 + 10 * ROWS


def test_readers_and_writers_go_on_while_small_files_are_merged(
    folder: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SMALL_FILES", 3)
    path, done = folder / "table", threading.Event()
    commits = 12 if isinstance(folder, Path) else 4
    delta.append(path, rows_of(0))

    def write(writer: int) -> None:
        for number in range(commits):
            version = delta.txn_version(path, f"writer {writer}")
            delta.append_if_version(path, rows_of(1 + writer * commits + number), f"writer {writer}", version)

    def merge() -> int:
        merged = 0
        while not done.is_set():
            merged += retention.compact_small_files(path)
        return merged

    def read() -> None:
        before = 0
        while not done.is_set():
            opened = delta.open_dataset(path)  # read after more compactions, which leave its files on disk
            now = len(read_commits(path))
            assert before <= opened.count_rows() // ROWS <= now
            before = now

    with ThreadPoolExecutor(4) as pool:
        reading, merging = pool.submit(read), pool.submit(merge)
        try:
            list(pool.map(write, range(2)))
        finally:
            done.set()
        reading.result()
        assert merging.result() >= 1
    assert read_commits(path) == list(range(1 + 2 * commits))
    retention.vacuum(path, grace=timedelta(0))
    assert read_commits(path) == list(range(1 + 2 * commits))


def append_and_merge(pipe: Connection, path: Location) -> None:
    """Add numbered commits and merge small files until the process is killed."""
    retention.SMALL_FILES = 3
    pipe.send("begins")
    while True:
        version = delta.txn_version(path, "numbers")
        delta.append_if_version(path, rows_of(version), "numbers", version)
        retention.compact_small_files(path)


def check_kills(path: Location, kills: int) -> None:
    chance = random.Random(0)
    for _ in range(kills):
        with begun(get_context("spawn"), append_and_merge, path):
            before = delta.txn_version(path, "numbers")
            while delta.txn_version(path, "numbers") == before:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.3))
        assert read_commits(path) == list(range(delta.txn_version(path, "numbers")))


def test_a_writer_that_is_killed_leaves_whole_commits_each_once(bucket: BucketPath) -> None:
    check_kills(bucket / "table", 2)


@pytest.mark.slow
def test_a_writer_that_is_killed_20_times_leaves_whole_commits_each_once(folder: Location) -> None:
    check_kills(folder / "table", 20)
