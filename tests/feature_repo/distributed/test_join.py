"""The join on Ray gives the rows of the join on one machine."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from ray.data.context import DEFAULT_SHUFFLE_STRATEGY, DataContext, ShuffleStrategy

from feature_repo.distributed import join
from feature_repo.errors import VitrineError
from feature_repo.location import BucketPath, Location
from feature_repo.offline import delta, training_set, training_set_on_disk
from feature_repo.offline.training_set import ViewTable

START = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = pa.timestamp("us", tz="UTC")
PRODUCTS = [*"abcdefg", "毛绒", "", None]


def stamps(days: list[int | None]) -> pa.Array:
    return pa.array([None if day is None else START + timedelta(days=day) for day in days], STAMP)


def versions(chance: random.Random, folder: Location, files: int = 5, rows: int = 40) -> None:
    """Write versions of pairs of product and user in several files; few days, so that ties are common."""
    for file in range(files):
        days = [[chance.choice([None, *range(8)]) for _ in range(rows)] for _ in range(2)]
        table = {
            "product_id": pa.array([chance.choice(PRODUCTS) for _ in range(rows)], pa.string()),
            "user": pa.array([chance.choice([1, 2, -(2**31), None]) for _ in range(rows)], pa.int32()),
            "event_timestamp": stamps(days[0]),
            "created_timestamp": stamps(days[1]),
            "number": pa.array(range(file * rows, file * rows + rows), pa.int64()),
            "vector": pa.array([[float(row)] * 3 for row in range(rows)], pa.list_(pa.float32())),
        }
        delta.append(folder, pa.table(table))


def views(folder: Location, ttl: timedelta | None) -> list[ViewTable]:
    """Return views of one table: keyed by product, by product and user, and without keys."""
    table = delta.open_dataset(folder)
    created: dict[str, Any] = {"created_timestamp": "created_timestamp", "ttl": ttl}
    looks = {"n": "number", "v": "vector"}
    return [
        ViewTable("looks", table, {"shown": "product_id"}, looks, "event_timestamp", **created),
        ViewTable("affinity", table, {"user": "user", "shown": "product_id"}, {"m": "number"}, "event_timestamp"),
        ViewTable("season", table, {}, {"s": "number"}, "event_timestamp", **created),
    ]


def impressions(chance: random.Random, rows: int = 300) -> pa.Table:
    """Return rows whose keys have other types than the table's."""
    days = [chance.choice([None, *range(-1, 9)]) for _ in range(rows)]
    return pa.table(
        {
            "shown": pa.array([chance.choice([*PRODUCTS, "stranger"]) for _ in range(rows)]).dictionary_encode(),
            "user": pa.array([chance.choice([1, 2, -(2**31), 2**40, None]) for _ in range(rows)], pa.int64()),
            "at": stamps(days).cast(pa.timestamp("ns", "Asia/Tokyo")),
            "label": range(rows),
        }
    )


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (0, {}),
        (1, {"created_by_then": True}),
        (2, {"created_before": START + timedelta(days=4)}),
    ],
)
def test_the_training_set_equals_that_of_one_machine(tmp_path: Path, seed: int, options: dict[str, Any]) -> None:
    check_join(tmp_path / "looks", seed, options)


@pytest.mark.slow
def test_the_training_set_of_tables_in_a_bucket_equals_that_of_one_machine(bucket: BucketPath) -> None:
    check_join(bucket / "looks", 1, {"created_by_then": True})


def check_join(folder: Location, seed: int, options: dict[str, Any]) -> None:
    chance = random.Random(seed)
    versions(chance, folder)
    asked = views(folder, chance.choice([None, timedelta(days=2)]))
    rows = impressions(chance)
    expected = training_set.join(rows, "at", asked, **options)
    made = training_set.join(rows, "at", asked, **options, find=join.look_up_rows)
    for name, matched in expected.views.items():
        assert made.views[name].row_index.tolist() == matched.row_index.tolist()
        assert made.views[name].versions == matched.versions
        assert made.views[name].event_timestamp.equals(matched.event_timestamp)
    assert (made.views["looks"].row_index >= 0).sum() > 50
    assert (made.views["affinity"].row_index >= 0).sum() > 50
    assert made.to_table() == expected.to_table()


@pytest.mark.slow
def test_the_default_shuffle_of_ray_gives_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ShuffleStrategy(DEFAULT_SHUFFLE_STRATEGY)
    monkeypatch.setattr(DataContext.get_current(), "shuffle_strategy", chosen)
    test_the_training_set_equals_that_of_one_machine(tmp_path, 6, {})


def test_rows_in_files_are_read_by_the_tasks(tmp_path: Path) -> None:
    chance = random.Random(3)
    versions(chance, tmp_path / "looks", files=2)
    rows = impressions(chance)
    for part in range(3):
        pq.write_table(rows.slice(100 * part, 100), tmp_path / f"rows-{part}.parquet", row_group_size=30)
    in_files = ds.dataset([tmp_path / f"rows-{part}.parquet" for part in range(3)])
    asked = views(tmp_path / "looks", None)[:1]
    made = training_set_on_disk.write(in_files, "at", asked, tmp_path / "set", find=join.look_up_rows)
    expected = training_set.join(rows, "at", asked)
    assert made.row_index["looks"].tolist() == expected.views["looks"].row_index.tolist()
    assert made.versions["looks"].to_table() == expected.views["looks"].versions


def test_an_empty_table_or_no_rows_match_nothing(tmp_path: Path) -> None:
    chance = random.Random(4)
    versions(chance, tmp_path / "looks", files=1)
    delta.overwrite(tmp_path / "empty", delta.read(tmp_path / "looks").slice(0, 0))
    rows = impressions(chance)
    for folder, of in ((tmp_path / "empty", rows), (tmp_path / "looks", rows.slice(0, 0))):
        made = training_set.join(of, "at", views(folder, None)[:2], find=join.look_up_rows)
        assert made.to_table() == training_set.join(of, "at", views(folder, None)[:2]).to_table()


def test_a_key_of_another_type_raises_one_line_that_names_the_view(tmp_path: Path) -> None:
    versions(random.Random(5), tmp_path / "looks", files=1)
    rows = impressions(random.Random(5))
    rows = rows.set_column(0, "shown", pa.array(range(len(rows))))
    for find in (None, join.look_up_rows):
        with pytest.raises(
            VitrineError, match=r"`looks`.*type int64 cannot be compared with one of type string"
        ) as refusal:
            training_set.join(rows, "at", views(tmp_path / "looks", None)[:1], find=find)
        assert "\n" not in str(refusal.value)
