"""The log of a table is short, and says the same as before."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from feature_repo.location import Location
from feature_repo.offline import delta, delta_log
from feature_repo.offline.storage import open_storage

HOUR = timedelta(hours=1)
ROWS = pa.table({"product_id": ["a"]})


def append(path: Location, commits: int) -> None:
    for _ in range(commits):
        delta.append_if_version(path, ROWS, "series", delta.txn_version(path, "series"), {"mark": 7})


def list_log(path: Path) -> set[str]:
    return {file.name for file in (path / "_delta_log").iterdir() if file.suffix != ".tmp"}


def age(path: Path, commits: range, hours: float) -> None:
    """Date the entries of some versions back."""
    then = time.time() - hours * 3600
    for version in commits:
        os.utime(path / "_delta_log" / f"{version:020}.json", (then, then))


def test_old_entries_are_removed_and_rows_markers_and_versions_stay(folder: Location) -> None:
    path = folder / "table"
    append(path, 5)
    assert delta_log.shorten_log(path, timedelta(0)) == 5  # the creation and four commits
    assert (delta.txn_version(path, "series"), delta.txn_marker(path, "mark")) == (5, 7)
    append(path, 2)
    assert delta.open_dataset(path).count_rows() == 7
    assert delta.latest_version(path) == 7
    assert delta.open_added_rows(path, delta.open_table(path), 5).count_rows() == 2
    assert delta.open_added_rows(path, delta.open_table(path), 3).count_rows() == 7, "the log has no version 3 any more"
    assert delta.exists(path)
    assert open_storage(path).filesystem.get_file_info(delta.LOG_FILES[0]).is_file


def test_entries_stay_as_long_as_the_caller_says(tmp_path: Path) -> None:
    path = tmp_path / "table"
    append(path, 5)
    age(path, range(3), hours=2)
    assert delta_log.shorten_log(path, HOUR) == 3
    assert list_log(path) >= {f"{version:020}.json" for version in range(3, 6)}
    assert delta_log.shorten_log(path, HOUR) == 0


def test_several_writers_shorten_one_log_at_the_same_time(tmp_path: Path) -> None:
    path, writers = tmp_path / "table", 4
    append(path, 3)
    for number in range(2_000):
        (path / "_delta_log" / f"{0:020}.{number}.crc").touch()
    barrier = threading.Barrier(writers)

    def shorten(_: int) -> int:
        barrier.wait()
        return delta_log.shorten_log(path, timedelta(0))

    with ThreadPoolExecutor(writers) as executor:
        assert sum(executor.map(shorten, range(writers))) == 2_000 + 3  # each entry is removed once
    assert delta.open_dataset(path).count_rows() == 3


def test_the_property_of_a_table_decides(tmp_path: Path) -> None:
    path = tmp_path / "table"
    append(path, 3)
    delta.open_table(path).alter.set_table_properties({delta_log.RETENTION_PROPERTY: "interval 3 hours"})
    age(path, range(4), hours=2)
    before = list_log(path)
    assert delta_log.shorten_log(path, timedelta(0)) == 0
    assert list_log(path) >= before
    age(path, range(4), hours=4)
    delta_log.shorten_log(path, timedelta(0))
    assert not list_log(path) & {f"{version:020}.json" for version in range(4)}


def test_a_table_is_read_and_written_while_its_log_is_shortened(tmp_path: Path) -> None:
    path, done = tmp_path / "table", threading.Event()
    append(path, 1)

    def shorten() -> None:
        while not done.is_set():
            delta_log.shorten_log(path, timedelta(0))

    with ThreadPoolExecutor(1) as pool:
        shortening = pool.submit(shorten)
        try:
            for commit in range(1, 40):
                append(path, 1)
                assert delta.open_dataset(path).count_rows() == commit + 1
        finally:
            done.set()
        shortening.result()
    assert delta.txn_version(path, "series") == 40
