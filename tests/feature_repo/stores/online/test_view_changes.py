"""Views that change, are deleted or are applied without rows, and what becomes of the rows online."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feast import FeatureStore, FeatureView, Field
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Int64, String

from consumers.online import OnlineReader, Status
from consumers.serving.response import build_response
from feature_repo.errors import InvalidInputError
from feature_repo.online.table import OnlineTable
from tests.feature_repo.stores.online.feast_world import (
    BEAR,
    CAR,
    DAY,
    NOW,
    OBJECTS,
    entity,
    get_features,
    looks,
    online,
    product,
    project,
    source,
    taste,
    write,
)


def test_a_view_whose_fields_change_keeps_its_rows(own_store: FeatureStore) -> None:
    write(own_store, "looks", [BEAR, CAR])
    fields = [field for field in looks.features if field.name in ("vector", "title")]
    changed = FeatureView(
        name="looks",
        entities=[product],
        ttl=10 * DAY,
        schema=[*fields, Field(name="price", dtype=String), Field(name="brand", dtype=String)],
        source=source("looks"),
    )
    before = get_features(own_store, ["looks:title"], [{"product_id": "bear"}])
    objects = [one for one in OBJECTS if getattr(one, "name", "") not in ("looks", "attention", "ranking")]
    own_store.apply([*objects, changed], objects_to_delete=[], partial=True)
    own_store.refresh_registry()
    assert before.to_dict()["title"] == ["毛绒 bear"]
    result = get_features(
        own_store, [f"looks:{name}" for name in ("title", "brand", "price", "vector")], [{"product_id": "bear"}]
    )
    assert result.to_dict() == {
        "product_id": ["bear"],
        "title": ["毛绒 bear"],
        "brand": [None],
        "price": [None],
        "vector": [[0.5, 0.25]],
    }
    present, absent = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
    assert [result.status(name).tolist() for name in ("title", "brand", "price")] == [[present], [absent], [absent]]
    only_new = get_features(own_store, ["looks:brand"], [{"product_id": "bear"}])
    assert only_new.status("brand").tolist() == [absent]
    write(own_store, "looks", [{"product_id": "car", "vector": [0.0], "title": "auto", "price": "9", "brand": "b"}])
    rows = [{"product_id": "bear"}, {"product_id": "car"}, {"product_id": "none"}]
    result = get_features(own_store, ["looks:title", "looks:brand"], rows)
    assert result.status("title").tolist() == [present, present, absent]
    assert result.status("brand").tolist() == [absent, present, absent]
    brand = result.proto.results[result.feature_names.index("brand")]
    assert list(brand.statuses) == [absent, present, absent]
    read = online(own_store).online_read(own_store.config, changed, [entity(product_id="bear")], ["title", "brand"])
    assert read == [(NOW, {"title": Value(string_val="毛绒 bear")})]
    reader = OnlineReader.from_table(online(own_store).online_table(own_store.config))
    batch = reader.fetch("looks", ["bear", "car", "none"], features=["title", "brand"])
    assert batch.status.tolist() == [Status.PRESENT, Status.PRESENT, Status.ABSENT]
    assert batch.feature_status("brand").tolist() == [Status.ABSENT, Status.PRESENT, Status.ABSENT]
    assert batch.feature_status("title").tolist() == batch.status.tolist()
    batch = reader.fetch("looks", ["bear", "car"], features=["brand"])
    assert batch.status.tolist() == [Status.ABSENT, Status.PRESENT]
    assert np.isnat(batch.event_timestamp).tolist() == [True, False]
    candidates = build_response(reader.fetch("looks", ["bear", "car"]), ["bear", "car"], (), {}).candidates
    assert candidates["status__looks"].to_pylist() == [Status.PRESENT, Status.PRESENT]
    assert candidates["status__brand"].to_pylist() == [Status.ABSENT, Status.PRESENT]
    assert "status__title" not in candidates.schema.names
    rows = rows[:2]
    result = get_features(own_store, ["looks:title", "looks:price"], rows)
    assert result.to_dict() | {"product_id": 0} == {
        "product_id": 0,
        "title": ["毛绒 bear", "auto"],
        "price": [None, "9"],
    }


def test_a_writer_with_older_definitions_takes_no_feature_and_no_ttl_from_readers(own_store: FeatureStore) -> None:
    """As a feature server does, which keeps the registry for minutes after `feast apply`."""
    table = online(own_store).online_table(own_store.config)
    changed = FeatureView(
        name="looks",
        entities=[product],
        ttl=20 * DAY,
        schema=[*looks.features, Field(name="brand", dtype=String)],
        source=source("looks"),
    )
    own_store.apply([changed])
    row = (entity(product_id="bear"), {"title": Value(string_val="bear")}, NOW, None)
    online(own_store).online_write_batch(own_store.config, looks, [row], None)
    reader = OnlineReader.from_table(OnlineTable(table.store, table.project))
    batch = reader.fetch("looks", ["bear"], features=["title", "brand"])
    assert (batch.values["title"].tolist(), batch.values["brand"].tolist()) == (["bear"], [None])
    assert table.catalog.get_view("looks").ttl_us == 20 * DAY / timedelta(microseconds=1)


def test_deleting_a_view_deletes_its_rows_and_no_others(own_store: FeatureStore) -> None:
    write(own_store, "looks", [BEAR, CAR])
    write(own_store, "pushed", [{"product_id": "bear", "stock": 4}])
    attention, ranking = own_store.get_on_demand_feature_view("attention"), own_store.get_feature_service("ranking")
    view = own_store.get_feature_view("looks")
    own_store.apply([], objects_to_delete=[attention, ranking, view], partial=False)
    assert "looks" not in online(own_store).online_table(own_store.config).catalog.reload().views
    assert get_features(own_store, ["pushed:stock"], [{"product_id": "bear"}]).to_dict()["stock"] == [4]
    own_store.apply([looks])
    assert get_features(own_store, ["looks:price"], [{"product_id": "bear"}]).to_dict()["price"] == [None]
    write(own_store, "looks", [CAR | {"colour": "blue"}])
    assert get_features(own_store, ["looks:colour"], [{"product_id": "car"}]).to_dict()["colour"] == ["blue"]


def test_applying_a_folder_without_definitions_is_refused_or_warned_of(
    own_store: FeatureStore, caplog: pytest.LogCaptureFixture
) -> None:
    """What `feast apply` calls in a folder that holds a feature_store.yaml only: beside one's own."""
    with pytest.raises(InvalidInputError, match=r"nothing to apply.*run it in the folder feature_repo"):
        own_store.apply([], partial=False)
    own_store.apply([product], partial=False)
    assert not caplog.records
    view = own_store.get_feature_view("taste")
    own_store.apply([], objects_to_delete=[view], partial=False)
    assert "1 views deleted and none applied" in caplog.text


def test_teardown_leaves_no_keys(online_config: dict[str, Any], tmp_path: Path) -> None:
    with project(tmp_path / "repo", online_config) as opened:
        write(opened, "looks", [BEAR])
        table = online(opened).online_table(opened.config)
    assert not table.catalog.reload().views
    assert table.store.get(b"vitrine:{shop}") is None


def test_offline_views_and_views_without_ttl_can_be_applied(online_config: dict[str, Any], tmp_path: Path) -> None:
    offline_only = FeatureView(
        name="hidden", entities=[product], schema=[Field(name="x", dtype=Int64)], source=source("hidden"), online=False
    )
    with project(tmp_path / "repo", online_config, [product, offline_only, taste, *OBJECTS[:2]]) as opened:
        assert set(online(opened).online_table(opened.config).catalog.load().views) == {"taste"}
