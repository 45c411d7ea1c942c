"""`OnlineReader` returns what Feast's own call returns, in the order of the ids."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from feast import FeatureStore

from consumers.online import Link, OnlineReader, Status
from feature_repo.errors import NotFoundError, VitrineError
from feature_repo.online import entity_keys
from feature_repo.online.feature_batch import FeatureBatch, ViewRows
from tests.feature_repo.stores.online.feast_world import BEAR, CAR, DAY, NOW, looks, online, write


@pytest.fixture
def reader(store: FeatureStore, url: str) -> OnlineReader:
    return OnlineReader(url, project="shared")


def test_rows_keep_the_order_of_repeated_and_absent_ids(store: FeatureStore, reader: OnlineReader) -> None:
    write(store, "looks", [BEAR, CAR])
    batch = reader.fetch("looks", ["car", "none", "bear", "car"])
    assert batch.count == 4
    np.testing.assert_array_equal(
        batch.values["vector"], np.array([[1, -1], [np.nan, np.nan], [0.5, 0.25], [1, -1]], np.float32)
    )
    assert batch.values["vector"].flags.c_contiguous
    assert batch.values["colour"].tolist() == ["red", None, "brown", "red"]
    assert batch.values["title"].tolist() == ["car", None, "毛绒 bear", "car"]
    assert batch.values["clicks"].tolist() == [8, None, 3, 8]
    assert batch.values["listed"][0] == np.datetime64("2026-01-01")
    assert batch.status.tolist() == [Status.PRESENT, Status.ABSENT, Status.PRESENT, Status.PRESENT]
    assert batch.event_timestamp[0] == np.datetime64(NOW.replace(tzinfo=None))
    assert np.isnat(batch.event_timestamp[1])
    assert batch.arrow("clicks").to_pylist() == [8, None, 3, 8]
    assert set(batch.values) == {field.name for field in looks.features}


def test_ids_that_look_equal_are_one_entity_written_and_read_by_the_reader_and_by_feast(
    store: FeatureStore, reader: OnlineReader
) -> None:
    write(store, "looks", [BEAR | {"product_id": "bear\u200b"}, CAR])
    odd = ["\ufeffbear", "car ", "bear", "bear\xa0"]
    assert reader.fetch("looks", odd).values["clicks"].tolist() == [3, 8, 3, 3]
    assert reader.fetch("looks", {"product_id": "car\n"}).values["clicks"].tolist() == [8]
    rows = [{"product_id": name} for name in odd]
    assert store.get_online_features(["looks:clicks"], rows).to_dict()["clicks"] == [3, 8, 3, 3]


def test_a_service_returns_one_users_features_for_every_candidate(store: FeatureStore, reader: OnlineReader) -> None:
    write(store, "looks", [BEAR, CAR])
    write(store, "taste", [{"user_id": 7, "interest": [1.0, 2.0], "age": 31.0}])
    write(store, "season", [{"sale": 0.2}])
    batch = reader.fetch("ranking", {"product_id": ["bear", "none", "car"], "user_id": 7})
    assert batch.values["interest"].tolist() == [[1.0, 2.0]] * 3
    assert batch.values["sale"].tolist() == [0.2] * 3
    values, row_index = batch.distinct("interest")
    assert (values.tolist(), row_index.tolist()) == ([[1.0, 2.0]], [0, 0, 0])
    assert batch.status.tolist() == [Status.PRESENT, Status.ABSENT, Status.PRESENT]
    assert batch.views["taste"].status().tolist() == [Status.PRESENT] * 3
    full = reader.fetch("ranking", {"product_id": ["bear"], "user_id": [7]}, full_feature_names=True)
    assert set(full.values) == {"looks__vector", "looks__colour", "taste__interest", "taste__age", "season__sale"}


@pytest.mark.parametrize("candidates", [["bear", "car", "bear"], ["none", "car", "bear"]])
@pytest.mark.parametrize("linked", ["looks", "pushed"])
def test_a_two_hop_fetch_returns_what_two_fetches_return(
    store: FeatureStore, reader: OnlineReader, candidates: list[str], linked: str
) -> None:
    """The second hop reads a view of the first hop too (`looks`), or another one (`pushed`)."""
    write(store, "looks", [BEAR, CAR])
    write(store, "taste", [{"user_id": 7, "interest": [1.0, 2.0], "age": 31.0}])
    write(store, "pushed", [{"product_id": "car", "stock": 4}])
    ages = []

    def recent_products(user: ViewRows) -> list[str]:
        ages.append(user.numpy("taste__age").tolist())
        return ["car", "none", "bear"]

    def contents(batch: FeatureBatch | None) -> tuple[object, ...]:
        assert batch is not None
        statuses = {name: view.status().tolist() for name, view in batch.views.items()}
        return batch.count, {name: batch.arrow(name).to_pylist() for name in batch.values}, statuses

    ids = {"product_id": candidates, "user_id": 7}
    first, second = reader.fetch_linked("ranking", ids, Link("taste", recent_products, linked))
    assert ages == [[31.0] * 3]
    assert contents(first) == contents(reader.fetch("ranking", ids, full_feature_names=True))
    assert contents(second) == contents(reader.fetch(linked, ["car", "none", "bear"], full_feature_names=True))
    first_alone, no_second = reader.fetch_linked("ranking", ids, Link("taste", lambda user: [], linked))
    assert contents(first_alone) == contents(first)
    assert no_second is None
    with pytest.raises(NotFoundError, match="`affinity` has no view `taste` that names the second hop"):
        reader.fetch_linked("affinity", ids, Link("taste", recent_products, linked))


def test_ids_may_be_lists_tuples_numpy_or_arrow_arrays(store: FeatureStore, reader: OnlineReader) -> None:
    import pyarrow as pa

    write(store, "affinity", [{"user_id": 1, "product_id": "a", "score": 0.5}])
    write(store, "taste", [{"user_id": 1, "interest": [1.0], "age": 3.0}])
    for users in ([1, 2], np.array([1, 2]), pa.array([1, 2]), (1, 2)):
        assert reader.fetch("taste", users, features=["age"]).status.tolist() == [Status.PRESENT, Status.ABSENT]
        batch = reader.fetch("affinity", {"user_id": users, "product_id": np.array(["a", "a"])})
        np.testing.assert_array_equal(batch.values["score"], [0.5, np.nan])
    assert reader.fetch("season", {}).count == 1
    assert reader.fetch("looks", []).values["vector"].shape == (0, 0)


def test_values_are_written_to_the_callers_arrays_and_tensors(store: FeatureStore, reader: OnlineReader) -> None:
    write(store, "looks", [BEAR, CAR])
    array, tensor = np.zeros((2, 2), np.float32), torch.zeros((2, 2))
    for target in (array, tensor):
        batch = reader.fetch("looks", ["bear", "car"], out={"vector": target})
        assert np.shares_memory(batch.values["vector"], np.asarray(target))
        assert target.tolist() == [[0.5, 0.25], [1.0, -1.0]]
    repeated = np.zeros((3, 2), np.float32)
    reader.fetch("looks", ["car", "car", "none"], out={"vector": repeated})
    np.testing.assert_array_equal(repeated, [[1, -1], [1, -1], [np.nan, np.nan]])
    assert reader.fetch("looks", ["bear"]).tensor("vector").tolist() == [[0.5, 0.25]]
    with pytest.raises(VitrineError, match=r"out\[`vector`\] is float64 \[2, 2\], expected float32"):
        reader.fetch("looks", ["bear", "car"], out={"vector": np.zeros((2, 2))})
    with pytest.raises(VitrineError, match="`looks` has no feature nothing"):
        reader.fetch("looks", ["bear"], out={"nothing": array})
    with pytest.raises(VitrineError, match="not numeric"):
        reader.fetch("looks", ["bear"]).tensor("title")


def test_a_row_older_than_its_ttl_at_request_time_is_stale(store: FeatureStore, reader: OnlineReader) -> None:
    write(store, "looks", [BEAR])
    ttl = timedelta(days=10)
    assert reader.fetch("looks", ["bear"], now=NOW + ttl).status.tolist() == [Status.PRESENT]
    later = NOW + ttl + timedelta(microseconds=1)
    stale = reader.fetch("looks", ["bear"], now=later)
    assert stale.status.tolist() == [Status.STALE]
    assert np.isnan(stale.values["price"]).all()
    assert stale.event_timestamp[0] == np.datetime64(NOW.replace(tzinfo=None))
    assert reader.fetch("looks", ["bear"], now=later, keep_stale=True).values["price"].tolist() == [9.99]


def test_fetch_async_returns_what_fetch_returns(store: FeatureStore, url: str) -> None:
    write(store, "looks", [BEAR, CAR])

    async def use() -> None:
        reader = OnlineReader(url, project="shared")
        batches = await asyncio.gather(*(reader.fetch_async("looks", ["car"] * n) for n in range(1, 30)))
        assert [batch.values["price"].tolist() for batch in batches] == [[9.99] * n for n in range(1, 30)]

    asyncio.run(use())


def test_a_damaged_row_is_failed_and_its_neighbours_are_read(store: FeatureStore, reader: OnlineReader) -> None:
    write(store, "looks", [BEAR, CAR])
    table = online(store).online_table(store.config)
    key = entity_keys.make_keys(entity_keys.make_prefix("shared", "looks"), [["bear"]])[0]
    row = table.store.get(key)
    assert row is not None
    table.store.compare_and_swap(key, row, row[:40] + bytes([row[40] ^ 1]) + row[41:])
    batch = reader.fetch("looks", ["bear", "car"])
    assert batch.status.tolist() == [Status.FAILED, Status.PRESENT]
    np.testing.assert_array_equal(batch.values["price"], [np.nan, 9.99])
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    response = store.get_online_features(["looks:price"], [{"product_id": "bear"}])
    assert response.to_dict()["price"] == [None]
    assert list(response.proto.results[1].statuses) == [FieldStatus.INVALID]


def test_a_reader_that_has_the_old_catalog_reads_rows_of_a_changed_view(own_store: FeatureStore, url: str) -> None:
    from feast import FeatureView, Field
    from feast.types import Int32

    from tests.feature_repo.stores.online.feast_world import product, source

    write(own_store, "looks", [BEAR])
    reader, other = OnlineReader(url, project="shop"), OnlineReader(url, project="shop")
    for one in (reader, other):
        assert one.fetch("looks", ["bear"]).status.tolist() == [Status.PRESENT]
    kept = [field for field in looks.features if field.name != "title"]
    changed = FeatureView(
        name="looks",
        entities=[product],
        ttl=10 * DAY,
        schema=[*kept, Field(name="added", dtype=Int32)],
        source=source("looks"),
    )
    own_store.apply([changed], partial=True)
    own_store.refresh_registry()
    assert other.fetch("looks", ["bear"], features=["added"]).values["added"].tolist() == [None]
    row = {name: value for name, value in CAR.items() if name != "title"} | {"added": 5, "colour": "a new colour"}
    write(own_store, "looks", [row])
    batch = reader.fetch("looks", ["bear", "car"], features=["title", "price", "colour"])
    assert batch.status.tolist() == [Status.PRESENT, Status.PRESENT]
    assert batch.values["title"].tolist() == ["毛绒 bear", None]
    assert batch.values["colour"].tolist() == ["brown", "a new colour"]
    assert reader.fetch("looks", ["bear", "car"]).values["added"].tolist() == [None, 5]


def test_errors_name_the_missing_view_feature_or_ids(store: FeatureStore, reader: OnlineReader, url: str) -> None:
    with pytest.raises(VitrineError, match=r"no service or view `look` in project `shared`"):
        reader.fetch("look", ["bear"])
    with pytest.raises(VitrineError, match=r"no service or view.*in project `other`; services: none; views: none"):
        OnlineReader(url, project="other").fetch("looks", ["bear"])
    with pytest.raises(VitrineError, match="view `looks` has no feature size"):
        reader.fetch("looks", ["bear"], features=["size"])
    with pytest.raises(VitrineError, match="`affinity` needs product_id, user_id; expected ids as a mapping"):
        reader.fetch("affinity", ["bear"])
    with pytest.raises(VitrineError, match="ids has no user_id"):
        reader.fetch("affinity", {"product_id": ["bear"]})
    with pytest.raises(VitrineError, match="different numbers of ids: 1, 2"):
        reader.fetch("affinity", {"product_id": ["bear"], "user_id": [1, 2]})
    for single in ("bear", b"bear", 7):
        with pytest.raises(VitrineError, match=rf"`looks`: ids is {single!r}, a single id; expected a sequence"):
            reader.fetch("looks", single)
    with pytest.raises(VitrineError, match="`ranking` is a feature service; features can be selected from a view only"):
        reader.fetch("ranking", ["bear"], features=["price"])
    assert len(reader.fetch("looks", {"product_id": "bear"}).status) == 1
    with pytest.raises(VitrineError, match="a join key is None"):
        reader.fetch("looks", [None])
    for url in ("http://localhost", "redis://[::1", "lmdb://[folder"):
        with pytest.raises(VitrineError, match="is not the URL of an online store"):
            OnlineReader(url, project="shared")


def test_importing_the_reader_does_not_import_feast_or_other_heavy_libraries() -> None:
    probe = "import sys, consumers.online; print(*sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True, cwd=root)
    assert not {"feast", "torch", "pandas", "deltalake", "redis", "lmdb"} & set(done.stdout.split())
