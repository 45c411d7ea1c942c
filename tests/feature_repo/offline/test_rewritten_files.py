"""The files from which the rows of a compaction or a deletion come, compared with the rows themselves."""

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.location import Location
from feature_repo.offline import delta, delta_files, retention
from feature_repo.offline.rewritten_files import find_changed_version, find_origins

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")
STEPS = ("append", "append", "append", "compact", "forget", "drop")


def rows_of(number: int) -> pa.Table:
    """Return three rows: two correct those of earlier numbers, one is of a new product."""
    ids = ["a", "b", f"p{number}"]
    created = pa.array([BEGAN + timedelta(days=number)] * 3, TIME)
    return pa.table({"product_id": ids, "event": pa.array([BEGAN] * 3, TIME), "created": created})


def apply_steps(path: Location, steps: Sequence[str]) -> list[set[str]]:
    """Change a table; return the names of its files after each step."""
    delta.append(path, rows_of(0))
    names = [set(delta_files.list_files(delta.open_table(path)))]
    for number, step in enumerate(steps, 1):
        if step == "append":
            delta.append(path, rows_of(number))
        elif step == "compact":
            retention.compact(path)
        elif step == "forget":
            retention.forget(path, "product_id", [f"p{number // 2}"])
        else:
            before = BEGAN + timedelta(days=number)
            retention.drop_corrected(path, keys=["product_id"], event="event", created="created", before=before)
        names.append(set(delta_files.list_files(delta.open_table(path))))
    return names


def read_rows(path: Path, names: set[str] | frozenset[str]) -> set[tuple[str, datetime]]:
    tables = [pq.read_table(path / name, partitioning=None) for name in names]
    return {(row["product_id"], row["created"]) for table in tables for row in table.to_pylist()}


@given(st.lists(st.sampled_from(STEPS), max_size=10), st.integers(0, 10))
def test_every_row_of_a_rewritten_file_was_in_its_origins(steps: list[str], known_after: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        names = apply_steps(path, steps)
        known, current = names[min(known_after, len(steps))], names[-1]
        origins = find_origins(path, current, known)
        assert not set(origins) & known
        for name, sources in origins.items():
            assert read_rows(path, {name}) <= read_rows(path, sources)
        brought = {name for name in current - known if name not in origins}
        new = read_rows(path, current) - read_rows(path, known)
        assert new <= read_rows(path, brought | (frozenset().union(*origins.values()) - known))
        for name in brought:  # only an append brings rows, and each brings its own
            assert read_rows(path, {name}) & new


def test_files_are_explained_in_a_folder_and_in_a_bucket(folder: Location) -> None:
    path = folder / "table"
    names = apply_steps(path, ["append", "compact", "append", "forget", "compact"])
    (merged,) = names[-1]
    (new,) = names[3] - names[2]
    assert find_origins(path, names[-1], names[1]) == {merged: names[1] | {new}}
    assert find_origins(path, names[-1], names[-1]) == {}


def test_a_file_whose_commit_the_log_has_lost_is_not_explained(tmp_path: Path) -> None:
    path = tmp_path / "table"
    names = apply_steps(path, ["append", "compact"])
    delta.open_table(path).create_checkpoint()
    (path / "_delta_log" / f"{2:020}.json").unlink()
    assert find_origins(path, names[-1], names[1]) == {}


def test_a_merge_that_adds_rows_brings_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "table"
    (first,) = apply_steps(path, [])
    source = rows_of(1)
    merge = delta.open_table(path).merge(source, "t.product_id = s.product_id", source_alias="s", target_alias="t")
    merge.when_matched_delete().when_not_matched_insert_all().execute()
    assert find_origins(path, delta_files.list_files(delta.open_table(path)), first) == {}


def test_maintenance_is_no_change_of_a_table_and_a_deletion_is(folder: Location) -> None:
    path = folder / "table"
    assert find_changed_version(path) is None
    apply_steps(path, ["append"])
    changed = delta.latest_version(path)
    retention.compact(path)
    retention.drop_corrected(
        path, keys=["product_id"], event="event", created="created", before=BEGAN + timedelta(days=9)
    )
    retention.vacuum(path, grace=timedelta(hours=1))
    assert delta.latest_version(path) != changed
    assert find_changed_version(path) == changed
    retention.forget(path, "product_id", ["a"])
    assert find_changed_version(path) == delta.latest_version(path)
