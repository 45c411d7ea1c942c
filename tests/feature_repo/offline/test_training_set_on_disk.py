"""Training sets on disk equal those in memory for any sizes of blocks and ranges."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.arrow import take
from feature_repo.errors import VitrineError
from feature_repo.offline import key_ranges, training_set, training_set_on_disk

START = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = pa.timestamp("us", tz="UTC")
days = st.one_of(st.none(), st.integers(0, 5))
keys = st.sampled_from(["a", "b", "c", "d", "é", None])


def stamps(values: list[int | None]) -> pa.Array:
    return pa.array([None if day is None else START + timedelta(days=day) for day in values], STAMP)


def history(versions: list[tuple[str | None, int | None]]) -> pa.Table:
    return pa.table(
        {
            "product_id": pa.array([key for key, _ in versions], pa.string()),
            "event_timestamp": stamps([day for _, day in versions]),
            "number": pa.array(range(len(versions)), pa.int64()),
            "vector": pa.array([[float(number)] * 3 for number in range(len(versions))], pa.list_(pa.float32())),
        }
    )


def looks(table: ds.Dataset) -> training_set.ViewTable:
    return training_set.ViewTable(
        "looks", table, {"shown": "product_id"}, {"number": "number", "vector": "vector"}, "event_timestamp"
    )


def season(table: ds.Dataset) -> training_set.ViewTable:
    return training_set.ViewTable("season", table, {}, {"of_all": "number"}, "event_timestamp")


def impressions(asked: list[tuple[str | None, int | None]]) -> pa.Table:
    return pa.table(
        {
            "shown": pa.array([key for key, _ in asked], pa.string()),
            "event_timestamp": stamps([day for _, day in asked]),
        }
    )


@settings(max_examples=settings.default.max_examples * 3 // 5)
@given(
    st.lists(st.tuples(keys, days), max_size=20),
    st.lists(st.tuples(keys, days), max_size=20),
    st.integers(1, 7),
    st.integers(1, 7),
)
def test_agrees_with_the_join_in_memory_for_any_blocks_and_ranges(
    tmp_path_factory: pytest.TempPathFactory, versions: Any, asked: Any, block_rows: int, versions_at_once: int
) -> None:
    folder = tmp_path_factory.mktemp("stored")
    pq.write_table(impressions(asked), folder / "rows.parquet", row_group_size=3)
    pq.write_table(history(versions), folder / "looks.parquet", row_group_size=3)
    rows = ds.dataset(folder / "rows.parquet")
    views = [looks(ds.dataset(folder / "looks.parquet")), season(ds.dataset(folder / "looks.parquet"))]
    made = training_set_on_disk.write(
        rows, "event_timestamp", views, folder / "set", block_rows=block_rows, versions_at_once=versions_at_once
    )
    expected = training_set.join(impressions(asked), "event_timestamp", views)
    for name, matched in expected.views.items():
        assert made.row_index[name].tolist() == matched.row_index.tolist()
        assert made.versions[name].to_table().to_pydict() == matched.versions.to_pydict()
    pieces = list(made.to_batches(rows=4))
    if asked:
        assert pa.concat_tables(pieces).to_pydict() == expected.to_table().to_pydict()
    again = training_set_on_disk.read(folder / "set", rows)
    assert {name: index.tolist() for name, index in again.row_index.items()} == {
        name: index.tolist() for name, index in made.row_index.items()
    }


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 1_000])
def test_ranges_cover_every_key_once_and_have_about_the_requested_size(rows: int) -> None:
    names = [f"p{number:03d}" for number in np.random.default_rng(0).integers(0, 40, 300)]
    table = ds.dataset(pa.table({"product_id": [*names, None]}))
    cut = key_ranges.split_by_key(table, "product_id", rows)
    column = pa.chunked_array([names])
    inside = np.stack([each.contains(column) for each in cut])
    assert inside.sum(axis=0).tolist() == [1] * len(names)
    most_of_one = max(names.count(name) for name in names)
    assert inside.sum(axis=1).max() <= rows + most_of_one


def test_a_training_set_appears_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, table = ds.dataset(impressions([("a", 1)])), ds.dataset(history([("a", 0)]))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(training_set_on_disk, "_write_versions", fail)
        with pytest.raises(OSError, match="No space left"):
            training_set_on_disk.write(rows, "event_timestamp", [looks(table)], tmp_path / "set")
    assert not (tmp_path / "set").exists()
    made = training_set_on_disk.write(rows, "event_timestamp", [looks(table)], tmp_path / "set")
    assert made.row_index["looks"].tolist() == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    with pytest.raises(VitrineError, match="exists"):
        training_set_on_disk.write(rows, "event_timestamp", [looks(table)], tmp_path / "set")


def test_reading_with_another_number_of_rows_raises_an_error(tmp_path: Path) -> None:
    rows, table = ds.dataset(impressions([("a", 1)])), ds.dataset(history([("a", 0)]))
    training_set_on_disk.write(rows, "event_timestamp", [looks(table)], tmp_path / "set")
    with pytest.raises(VitrineError, match="created from 1 rows, but 2 rows were given"):
        training_set_on_disk.read(tmp_path / "set", ds.dataset(impressions([("a", 1), ("b", 1)])))
    with pytest.raises(VitrineError, match="holds no training set"):
        training_set_on_disk.read(tmp_path / "nothing", rows)


def test_a_key_of_another_type_raises_an_error_that_names_the_view(tmp_path: Path) -> None:
    rows = ds.dataset(impressions([("a", 1)]).set_column(0, "shown", pa.array([7])))
    with pytest.raises(VitrineError, match="type int64 cannot be compared"):
        training_set_on_disk.write(
            rows,
            "event_timestamp",
            [looks(ds.dataset(history([("a", 0), ("b", 0)])))],
            tmp_path / "set",
            versions_at_once=1,
        )


@given(st.lists(st.integers(-1, 8), max_size=12), st.integers(1, 13))
def test_renumber_gives_ranks_of_the_positions_in_use_for_any_block_size(asked: list[int], block_rows: int) -> None:
    positions = np.array(asked, np.int64)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(take, "CHUNK_ROWS", block_rows)
        used = take.renumber(positions, 9)
    assert used.tolist() == sorted({position for position in asked if position >= 0})
    assert np.append(used, -1)[positions].tolist() == asked


def test_a_training_set_without_views_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    pq.write_table(history([("a", 0)]), rows)
    with pytest.raises(VitrineError, match="at least one feature view"):
        training_set_on_disk.write(ds.dataset(rows), "event_timestamp", [], tmp_path / "set")
    assert not (tmp_path / "set").exists()
