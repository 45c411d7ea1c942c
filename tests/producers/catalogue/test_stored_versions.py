"""When a products file adds versions to the catalogue, and when it adds nothing."""

from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as drawing
from hypothesis import strategies as st

from feature_repo.config import Settings
from feature_repo.offline import delta
from producers.catalogue import stored_versions
from producers.catalogue.ingest import ingest_products
from tests.producers.catalogue.shop import NOW, ingest, open_deployment, read_catalogue, read_rejections, write_products

DAY = timedelta(days=1)


def test_adds_nothing_when_it_runs_twice(store: Settings) -> None:
    rows = [{}, {"product_id": "p2", "image": None, "brand": None, "price": None}, {"product_id": None}]
    assert (ingest(store, *rows).new, ingest(store, *rows, now=NOW + DAY).unchanged) == (2, 2)
    assert len(read_catalogue(store)) == 2
    assert len(read_rejections(store)) == 1


def test_a_later_time_alone_is_not_a_change(store: Settings) -> None:
    ingest(store, {})
    assert ingest(store, {"updated_at": "2026-01-05T00:00:00Z"}).unchanged == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [("title", None), ("image", "b.jpg"), ("category", "x"), ("brand", None), ("price", None), ("price", 60.0)],
)
def test_adds_a_version_when_anything_changed(column: str, value: object, store: Settings) -> None:
    ingest(store, {}, {"product_id": "p2"})
    summary = ingest(store, {column: value, "updated_at": "2026-01-05T00:00:00Z"}, {"product_id": "p2"}, now=NOW + DAY)
    assert (summary.new, summary.changed, summary.unchanged) == (0, 1, 1)
    assert [row["event_timestamp"].day for row in read_catalogue(store) if row["product_id"] == "p1"] == [2, 5]


def test_a_price_that_returns_to_an_earlier_value_is_a_change(store: Settings) -> None:
    for day, price in ((2, 10.0), (3, 20.0), (4, 10.0)):
        ingest(store, {"price": price, "updated_at": f"2026-01-0{day}T00:00:00Z"})
    assert [row["price"] for row in read_catalogue(store)] == [10.0, 20.0, 10.0]


def test_a_correction_with_the_same_timestamp_is_added_and_becomes_valid(store: Settings) -> None:
    ingest(store, {"price": 10.0})
    assert ingest(store, {"price": 11.0}, now=NOW + DAY).changed == 1
    assert ingest(store, {"price": 11.0}, now=NOW + 2 * DAY).unchanged == 1


def test_an_older_file_that_arrives_late_adds_its_version_once(store: Settings) -> None:
    late = {"price": 5.0, "updated_at": "2026-01-01T00:00:00Z"}
    ingest(store, {})
    assert ingest(store, late, now=NOW + DAY).changed == 1
    assert ingest(store, late, now=NOW + 2 * DAY).unchanged == 1
    assert ingest(store, {}, now=NOW + 3 * DAY).unchanged == 1
    assert [row["price"] for row in read_catalogue(store)] == [5.0, 59.0]


def test_reads_of_stored_versions_only_ids_timestamps_and_hashes(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(store, *({"product_id": f"p{number}", "image": b"picture"} for number in range(50)), {"product_id": None})
    read, results = delta.read, []

    def record(*arguments: object, **options: object) -> pa.Table:
        results.append(read(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(delta, "read", record)
    file = write_products(
        store, {"product_id": "p7", "image": b"another"}, {"product_id": "new", "image": b"x", "price": -1.0}
    )
    summary = ingest_products(store, file, NOW, partial=True)
    assert (summary.new, summary.changed) == (1, 1)
    stored, quarantined = results
    assert stored.column_names == stored_versions.COLUMNS
    assert quarantined.num_rows == 0  # rows about product `new`


VERSIONS = st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.sampled_from([None, 1.0, 2.0]))


@drawing(max_examples=drawing.default.max_examples * 2 // 5)  # each example writes Delta tables
@given(st.lists(st.lists(VERSIONS, min_size=1, max_size=4), min_size=1, max_size=4))
def test_adds_exactly_the_versions_that_a_row_by_row_oracle_adds(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[str, int, float | None]]]
) -> None:
    store = open_deployment(tmp_path_factory.mktemp("drawn"))
    history: list[tuple[str, int, float | None]] = []
    for number, file in enumerate(files):
        rows = [
            {"product_id": product, "price": price, "updated_at": f"2026-01-0{day}T00:00:00Z"}
            for product, day, price in file
        ]
        ingest(store, *rows, now=NOW + number * DAY)
        for product in "ab":
            arrived = [row for row in file if row[0] == product]
            if arrived:
                _, day, price = newest = max(reversed(arrived), key=lambda row: row[1])
                before = [row for row in history if row[0] == product and row[1] <= day]
                valid = max(reversed(before), key=lambda row: row[1]) if before else None
                if valid is None or valid[2] != price:
                    history.append(newest)
    stored = [(row["product_id"], row["event_timestamp"].day, row["price"]) for row in read_catalogue(store)]
    assert sorted(stored, key=repr) == sorted(history, key=repr)
