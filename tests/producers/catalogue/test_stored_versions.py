"""When a file of products adds versions to the catalogue, and when it adds nothing."""

from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as drawing
from hypothesis import strategies as st

from feature_repo.config import Settings
from feature_repo.offline import delta
from producers.catalogue import stored_versions
from tests.producers.catalogue.shop import NOW, known, opened, refused, taken

DAY = timedelta(days=1)


def test_adds_nothing_when_it_runs_twice(store: Settings) -> None:
    rows = [{}, {"product_id": "p2", "image": None, "brand": None, "price": None}, {"product_id": None}]
    assert (taken(store, *rows).new, taken(store, *rows, now=NOW + DAY).unchanged) == (2, 2)
    assert len(known(store)) == 2
    assert len(refused(store)) == 1


def test_does_not_take_a_later_time_alone_for_a_change(store: Settings) -> None:
    taken(store, {})
    assert taken(store, {"updated_at": "2026-01-05T00:00:00Z"}).unchanged == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [("title", None), ("image", "b.jpg"), ("category", "x"), ("brand", None), ("price", None), ("price", 60.0)],
)
def test_adds_a_version_when_anything_changed(column: str, value: object, store: Settings) -> None:
    taken(store, {}, {"product_id": "p2"})
    came = taken(store, {column: value, "updated_at": "2026-01-05T00:00:00Z"}, {"product_id": "p2"}, now=NOW + DAY)
    assert (came.new, came.changed, came.unchanged) == (0, 1, 1)
    assert [row["event_timestamp"].day for row in known(store) if row["product_id"] == "p1"] == [2, 5]


def test_a_price_that_goes_back_to_what_it_was_is_a_change(store: Settings) -> None:
    for day, price in ((2, 10.0), (3, 20.0), (4, 10.0)):
        taken(store, {"price": price, "updated_at": f"2026-01-0{day}T00:00:00Z"})
    assert [row["price"] for row in known(store)] == [10.0, 20.0, 10.0]


def test_a_correction_of_the_same_moment_is_kept_beside_it_and_counts_from_then_on(store: Settings) -> None:
    taken(store, {"price": 10.0})
    assert taken(store, {"price": 11.0}, now=NOW + DAY).changed == 1
    assert taken(store, {"price": 11.0}, now=NOW + 2 * DAY).unchanged == 1


def test_an_older_file_that_comes_late_adds_its_version_once(store: Settings) -> None:
    late = {"price": 5.0, "updated_at": "2026-01-01T00:00:00Z"}
    taken(store, {})
    assert taken(store, late, now=NOW + DAY).changed == 1
    assert taken(store, late, now=NOW + 2 * DAY).unchanged == 1
    assert taken(store, {}, now=NOW + 3 * DAY).unchanged == 1
    assert [row["price"] for row in known(store)] == [5.0, 59.0]


def test_reads_of_what_is_known_ids_times_and_digests_and_no_title_or_picture(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(store, *({"product_id": f"p{number}", "image": b"picture"} for number in range(50)), {"product_id": None})
    reading, loaded = delta.read, []

    def watched(*arguments: object, **options: object) -> pa.Table:
        loaded.append(reading(*arguments, **options))
        return loaded[-1]

    monkeypatch.setattr(delta, "read", watched)
    came = taken(store, {"product_id": "p7", "image": b"another"}, {"product_id": "new", "image": b"x", "price": -1.0})
    assert (came.new, came.changed) == (1, 1)
    known_, quarantined = loaded
    assert known_.column_names == stored_versions.COLUMNS
    assert quarantined.num_rows == 0  # about `new` nothing


MOMENTS = st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.sampled_from([None, 1.0, 2.0]))


@drawing(max_examples=40, deadline=None)  # each example writes Delta tables
@given(st.lists(st.lists(MOMENTS, min_size=1, max_size=4), min_size=1, max_size=4))
def test_adds_exactly_what_a_slow_reading_of_the_history_would_add(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[str, int, float | None]]]
) -> None:
    store = opened(tmp_path_factory.mktemp("drawn"))
    history: list[tuple[str, int, float | None]] = []
    for number, file in enumerate(files):
        rows = [
            {"product_id": product, "price": price, "updated_at": f"2026-01-0{day}T00:00:00Z"}
            for product, day, price in file
        ]
        taken(store, *rows, now=NOW + number * DAY)
        for product in "ab":
            came = [row for row in file if row[0] == product]
            if came:
                _, day, price = newest = max(reversed(came), key=lambda row: row[1])
                before = [row for row in history if row[0] == product and row[1] <= day]
                valid = max(reversed(before), key=lambda row: row[1]) if before else None
                if valid is None or valid[2] != price:
                    history.append(newest)
    found = [(row["product_id"], row["event_timestamp"].day, row["price"]) for row in known(store)]
    assert sorted(found, key=repr) == sorted(history, key=repr)
