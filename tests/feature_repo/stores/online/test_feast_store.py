"""The online stores, used through Feast's own calls."""

import asyncio
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from feast import FeatureService, FeatureStore
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.Value_pb2 import Value

from consumers.online import OnlineReader, Status
from feature_repo.errors import InvalidInputError
from tests.arrow_rows import write_arrow
from tests.feature_repo.stores.online.feast_world import (
    BEAR,
    CAR,
    DAY,
    NOW,
    entity,
    get_features,
    halves,
    looks,
    online,
    prices,
    product,
    totals,
    user,
    write,
)

LOOKS = [f"looks:{name}" for name in ("vector", "colour", "title", "price", "clicks", "on_sale", "listed")]


def test_rows_are_in_the_order_of_the_request_with_repeated_and_absent_entities(store: FeatureStore) -> None:
    write(store, "looks", [BEAR, CAR])
    response = get_features(store, LOOKS, [{"product_id": one} for one in ("car", "none", "bear", "car")])
    result = response.to_dict()
    assert result["product_id"] == ["car", "none", "bear", "car"]
    assert result["vector"] == [[1.0, -1.0], None, [0.5, 0.25], [1.0, -1.0]]
    assert result["title"] == ["car", None, "毛绒 bear", "car"]
    assert result["colour"] == ["red", None, "brown", "red"]
    assert result["on_sale"] == [True, None, True, True]
    assert result["listed"][1:3] == [None, BEAR["listed"].to_pydatetime()]
    present, absent = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
    assert response.status("price").tolist() == [present, absent, present, present]
    timestamps = response.event_timestamp("price")
    assert timestamps[0] == np.datetime64(NOW.replace(tzinfo=None))
    assert np.isnat(timestamps[1])


def test_numpy_arrow_tensors_protobuf_and_python_hold_the_same_values(store: FeatureStore) -> None:
    write(store, "looks", [BEAR, CAR])
    response = get_features(store, LOOKS, [{"product_id": one} for one in ("car", "none", "bear")])
    arrays = response.to_numpy()
    np.testing.assert_array_equal(arrays["vector"], np.array([[1, -1], [np.nan, np.nan], [0.5, 0.25]], np.float32))
    assert arrays["vector"].dtype == np.float32
    assert arrays["vector"].flags.c_contiguous
    assert arrays["colour"].tolist() == ["red", None, "brown"]
    assert np.ma.is_masked(arrays["clicks"][1])
    assert arrays["clicks"].compressed().tolist() == [8, 3]
    np.testing.assert_array_equal(arrays["price"], [9.99, np.nan, 9.99])
    table = response.to_arrow()
    assert table["vector"].to_pylist() == [[1.0, -1.0], None, [0.5, 0.25]]
    assert table["colour"].to_pylist() == ["red", None, "brown"]
    assert table["clicks"].to_pylist() == [8, None, 3]
    assert table["listed"].type == pa.timestamp("s", tz="UTC")
    tensors = response.to_tensor()
    assert tensors["vector"].shape == (3, 2)
    assert torch.isnan(tensors["vector"][1]).all()
    assert torch.isnan(tensors["clicks"][1])
    assert tensors["title"][0] == "car"
    assert response.to_tensor(default_value=-1)["clicks"].tolist() == [8, -1, 3]
    assert "proto" not in vars(response), "protobuf is built at the first access"
    proto = response.proto
    assert list(proto.metadata.feature_names.val) == response.feature_names
    vector = proto.results[response.feature_names.index("vector")]
    assert list(vector.values[0].float_list_val.val) == [1.0, -1.0]
    assert vector.values[1] == Value()
    assert list(vector.statuses) == [FieldStatus.PRESENT, FieldStatus.NOT_FOUND, FieldStatus.PRESENT]
    assert vector.event_timestamps[0].ToMicroseconds() == round(NOW.timestamp() * 1_000_000)
    assert response.to_df()["title"].tolist() == ["car", None, "毛绒 bear"]


def test_an_entity_that_many_rows_name_is_read_and_kept_once(store: FeatureStore) -> None:
    write(store, "taste", [{"user_id": 7, "interest": [1.0, 2.0, 3.0], "age": 31.0}])
    response = get_features(store, ["taste:interest", "taste:age"], [{"user_id": 7}] * 500)
    values, row_index = response.distinct("interest")
    assert values.shape == (1, 3)
    assert row_index.tolist() == [0] * 500
    array = response.to_numpy()["interest"]
    assert array.shape == (500, 3)
    assert array.strides[0] == 0, "a view of one row"
    assert response.to_dict()["age"] == [31.0] * 500
    assert len(response.proto.results[1].values) == 500


def test_a_service_joins_views_of_several_entities_and_of_no_entity(store: FeatureStore) -> None:
    write(store, "looks", [BEAR, CAR])
    write(store, "taste", [{"user_id": 7, "interest": [1.0], "age": 31.0}])
    write(store, "season", [{"sale": 0.2}])
    service = store.get_feature_service("ranking")
    rows = [{"product_id": "bear", "user_id": 7}, {"product_id": "car", "user_id": 8}]
    result = get_features(store, service, rows).to_dict()
    assert result["colour"] == ["brown", "red"]
    assert result["interest"] == [[1.0], None]
    assert result["sale"] == [0.2, 0.2]
    assert "__dummy_id" not in result
    full = get_features(store, service, rows, full_feature_names=True)
    assert set(full.to_dict()) == {
        "product_id",
        "user_id",
        *("looks__vector", "looks__colour", "taste__interest", "taste__age", "season__sale"),
    }


def test_a_view_of_two_entities_has_a_row_for_each_pair(store: FeatureStore) -> None:
    write(
        store,
        "affinity",
        [{"user_id": 1, "product_id": "1", "score": 0.5}, {"user_id": 11, "product_id": "", "score": 0.25}],
    )
    rows = [{"product_id": "1", "user_id": 1}, {"user_id": 11, "product_id": ""}, {"user_id": 1, "product_id": ""}]
    assert get_features(store, ["affinity:score"], [rows[0]]).to_dict()["score"] == [0.5]
    columns = {"user_id": [1, 11, 1], "product_id": ["1", "", ""]}
    assert store.get_online_features(["affinity:score"], columns).to_dict()["score"] == [0.5, 0.25, None]


def test_a_service_may_rename_a_view_and_its_join_key(store: FeatureStore) -> None:
    write(store, "looks", [BEAR, CAR])
    seen = looks[["colour"]].with_name("seen").with_join_key_map({"product_id": "seen_id"})
    service = FeatureService(name="pairs", features=[looks[["colour"]].with_name("offered"), seen])
    store.apply([service])
    rows = [{"product_id": "bear", "seen_id": "car"}]
    result = get_features(store, store.get_feature_service("pairs"), rows, full_feature_names=True).to_dict()
    assert result == {"product_id": ["bear"], "seen_id": ["car"], "offered__colour": ["brown"], "seen__colour": ["red"]}


def test_a_row_older_than_its_ttl_is_outside_max_age_and_has_its_value(store: FeatureStore) -> None:
    old = NOW - 11 * DAY
    write(store, "looks", [BEAR | {"event_timestamp": old}, CAR | {"event_timestamp": NOW - 9 * DAY}])
    write(store, "taste", [{"user_id": 7, "interest": [1.0], "age": 31.0, "event_timestamp": old - 5000 * DAY}])
    response = get_features(store, ["looks:price", "looks:colour"], [{"product_id": "bear"}, {"product_id": "car"}])
    assert response.status("price").tolist() == [FieldStatus.OUTSIDE_MAX_AGE, FieldStatus.PRESENT]
    assert response.to_dict()["price"] == [9.99, 9.99]
    assert response.to_dict()["colour"] == ["brown", "red"]
    proto = response.proto.results[response.feature_names.index("price")]
    assert list(proto.statuses) == [FieldStatus.OUTSIDE_MAX_AGE, FieldStatus.PRESENT]
    assert proto.values[0] == Value(double_val=9.99)
    assert response.event_timestamp("price")[0] == np.datetime64(old.replace(tzinfo=None))
    assert get_features(store, ["taste:age"], [{"user_id": 7}]).to_dict()["age"] == [31.0], (
        "without a TTL no row is stale"
    )
    ((event, features),) = online(store).online_read(store.config, looks, [entity(product_id="bear")], ["price"])
    assert (event, features) == (old, {"price": Value(double_val=9.99)})
    reader = OnlineReader.from_table(online(store).online_table(store.config))
    if True:
        batch = reader.fetch("looks", ["bear"], features=["price"])
        assert batch.status.tolist() == [Status.STALE]
        assert np.isnan(batch.values["price"]).all()


def test_the_newest_row_is_kept_in_any_write_order(store: FeatureStore) -> None:
    for price, event, created in [(1.0, 0, 0), (2.0, -1, 5), (3.0, 0, -1), (4.0, 0, 0)]:
        times = {
            "event_timestamp": NOW + timedelta(seconds=event),
            "created_timestamp": NOW + timedelta(seconds=created),
        }
        write(store, "looks", [BEAR | {"price": price} | times])
    result = get_features(store, ["looks:price"], [{"product_id": "bear"}]).to_dict()["price"]
    assert result == [4.0], "for equal timestamps the last write"
    write(
        store, "looks", [BEAR | {"price": price, "created_timestamp": NOW + DAY * price} for price in (5.0, 7.0, 6.0)]
    )
    assert get_features(store, ["looks:price"], [{"product_id": "bear"}]).to_dict()["price"] == [7.0]


def test_a_row_with_missing_features_is_present_and_they_are_null(store: FeatureStore) -> None:
    online(store).online_write_batch(
        store.config, looks, [(entity(product_id="bear"), {"price": Value(double_val=1.0)}, NOW, None)], None
    )
    response = get_features(store, LOOKS, [{"product_id": "bear"}])
    assert {name: value[0] for name, value in response.to_dict().items() if value[0] is not None} == {
        "product_id": "bear",
        "price": 1.0,
    }
    assert response.status("clicks").tolist() == [FieldStatus.PRESENT]


def test_a_write_reports_progress_and_online_read_returns_the_features(store: FeatureStore) -> None:
    progress: list[int] = []
    rows = [(entity(product_id=str(i)), {"price": Value(double_val=i)}, NOW, NOW) for i in range(3)]
    online(store).online_write_batch(store.config, looks, rows, progress.append)
    assert progress == [3]
    keys = [entity(product_id=one) for one in ("2", "x", "0")]
    result = online(store).online_read(store.config, looks, keys, ["price"])
    assert result == [(NOW, {"price": Value(double_val=2)}), (None, None), (NOW, {"price": Value(double_val=0)})]


def test_async_calls_return_what_sync_calls_return(store: FeatureStore) -> None:
    async def use() -> None:
        row = (entity(product_id="bear"), {"price": Value(double_val=1.0)}, NOW, NOW)
        await online(store).online_write_batch_async(store.config, looks, [row], None)
        result = await online(store).online_read_async(store.config, looks, [entity(product_id="bear")], ["price"])
        assert result == [(NOW, {"price": Value(double_val=1.0)})]
        responses = await asyncio.gather(
            *(store.get_online_features_async(["looks:price"], [{"product_id": "bear"}] * n) for n in range(1, 20))
        )
        assert [one.to_dict()["price"] for one in responses] == [[1.0] * n for n in range(1, 20)]
        frame = pd.DataFrame([{"product_id": "bear", "stock": 4, "event_timestamp": NOW, "created_timestamp": NOW}])
        await store.push_async("pushes", frame)
        pushed = await store.get_online_features_async(["pushed:stock"], [{"product_id": "bear"}])
        assert pushed.to_dict()["stock"] == [4]

    supported = online(store).async_supported
    assert supported.read
    assert supported.write
    asyncio.run(use())


def test_pushed_rows_are_read(store: FeatureStore) -> None:
    frame = pd.DataFrame([{"product_id": "bear", "stock": 4, "event_timestamp": NOW, "created_timestamp": NOW}])
    store.push("pushes", frame)
    assert get_features(store, ["pushed:stock"], [{"product_id": "bear"}]).to_dict()["stock"] == [4]


def test_on_demand_views_are_computed(store: FeatureStore) -> None:
    write(store, "looks", [BEAR, CAR])
    rows = [{"product_id": "car", "position": 1}, {"product_id": "bear", "position": 0}]
    result = store.get_online_features(["attention:clicks_by_position", "looks:colour"], rows).to_dict()
    assert result["clicks_by_position"] == [4.0, 3.0]
    assert result["colour"] == ["red", "brown"]


def test_views_computed_when_written_and_when_read_are_fetched_together(own_store: FeatureStore) -> None:
    own_store.apply([product, user, prices, totals, halves])
    rows = {"product_id": "bear", "user_id": 7, "price": 300.0, "fee": 15.0}
    old = {"event_timestamp": NOW - 900 * DAY, "created_timestamp": NOW - 900 * DAY}
    write(own_store, "prices", [rows | old])
    write(own_store, "totals", [rows])
    ids = [{"product_id": "bear", "user_id": 7}, {"product_id": "bear", "user_id": 8}]
    assert own_store.get_online_features(["totals:total"], ids).to_dict()["total"] == [315.0, None]
    together = own_store.get_online_features(["totals:total", "halves:half"], ids[:1]).to_dict()
    assert (together["total"], together["half"]) == ([315.0], [150.0])


def test_arrow_rows_are_written_without_protobuf(store: FeatureStore) -> None:
    count = 100
    rows = pa.table(
        {
            "product_id": [f"p{i}" for i in range(count)],
            "vector": pa.array([[i, -i] for i in range(count)], pa.list_(pa.float32(), 2)),
            "colour": pa.array(["red", None, "blue", "red"] * 25).dictionary_encode(),
            "title": pa.array([None, "t"] * 50, pa.large_string()),
            "price": pa.array(range(count), pa.int64()),
            "clicks": pa.array(range(count), pa.int32()),
            "on_sale": [True, False] * 50,
            "listed": pa.array([NOW] * count, pa.timestamp("ns", tz="UTC")),
            "event_timestamp": pa.array([NOW] * count, pa.timestamp("us", tz="UTC")),
            "created_timestamp": pa.array([NOW] * count, pa.timestamp("us", tz="UTC")),
        }
    )
    assert write_arrow(store, "looks", rows) == count
    assert write_arrow(store, "looks", rows.slice(3, 2)) == 2
    result = get_features(store, LOOKS, [{"product_id": "p7"}, {"product_id": "p1"}]).to_dict()
    assert result["vector"] == [[7.0, -7.0], [1.0, -1.0]]
    assert result["colour"] == ["red", None]
    assert result["price"] == [7.0, 1.0]
    assert result["listed"] == [NOW.replace(microsecond=0)] * 2
    with pytest.raises(Exception, match="the rows have no column price"):
        write_arrow(store, "looks", rows.drop(["price"]))


def test_a_deleted_entity_is_absent(store: FeatureStore) -> None:
    write(store, "looks", [BEAR, CAR])
    online(store).delete_entities(store.config, looks, {"product_id": ["bear"]})
    result = get_features(store, ["looks:price"], [{"product_id": "bear"}, {"product_id": "car"}])
    assert result.to_dict()["price"] == [None, 9.99]


def test_the_error_names_a_missing_join_key(store: FeatureStore) -> None:
    with pytest.raises(KeyError, match="Missing join key values for keys: \\['product_id'\\]"):
        store.get_online_features(["looks:price"], [{"user_id": 1}])
    with pytest.raises(ValueError, match="All entity_rows must have the same keys"):
        store.get_online_features(["looks:price"], [{"product_id": "a"}, {"user_id": 1}])


ODD_IDS = [None, float("nan"), 1.5, True, np.True_, pd.NaT, [1], b"\xff", np.float64("inf"), {}]


@pytest.mark.parametrize("features", [["looks:price"], ["attention:clicks_by_position"]])
def test_ids_of_another_type_are_converted_or_refused_and_never_silently_absent(
    store: FeatureStore, features: list[str]
) -> None:
    write(store, "looks", [BEAR | {"product_id": "1001"}])
    for one in ("1001", 1001, 1001.0, b"1001", np.int32(1001), np.float32(1001), np.str_("1001")):
        (value,) = store.get_online_features(features, [{"product_id": one, "position": 0}]).to_df()[
            features[0].split(":")[1]
        ]
        assert value == (9.99 if features == ["looks:price"] else 3.0), repr(one)
    for one in ODD_IDS:
        with pytest.raises(InvalidInputError, match="join key `product_id` is string, and an id is ") as refused:
            store.get_online_features(features, {"product_id": ["1001", one], "position": [0, 0]})
        assert "\n" not in str(refused.value)


def test_numbers_as_ids_are_whole(store: FeatureStore) -> None:
    write(store, "taste", [{"user_id": 7, "interest": [1.0], "age": 31.0}])
    for one in (7, 7.0, "7", b"7", np.int8(7)):
        assert get_features(store, ["taste:age"], [{"user_id": one}]).to_dict()["age"] == [31.0], repr(one)
    for one in [*ODD_IDS, "seven", "7.5"]:
        with pytest.raises(InvalidInputError, match="join key `user_id` is int64, and an id is "):
            store.get_online_features(["taste:age"], [{"user_id": one}])
