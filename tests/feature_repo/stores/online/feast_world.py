"""A small Feast project with a view of every kind, on a given online store."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

from feature_repo.stores.online.packed import PackedOnlineStore
from feature_repo.stores.online.response import ColumnarResponse

NOW = datetime.now(UTC).replace(microsecond=123_456)
DAY = timedelta(days=1)


def source(name: str) -> FileSource:
    return FileSource(
        name=name,
        path=f"{name}.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )


product = Entity(name="product", join_keys=["product_id"], value_type=ValueType.STRING)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)

looks = FeatureView(
    name="looks",
    entities=[product],
    ttl=10 * DAY,
    schema=[
        Field(name="vector", dtype=Array(Float32), tags={"storage": "float16"}),
        Field(name="colour", dtype=String, tags={"storage": "dictionary"}),
        Field(name="title", dtype=String),
        Field(name="price", dtype=Float64),
        Field(name="clicks", dtype=Int64),
        Field(name="on_sale", dtype=Bool),
        Field(name="listed", dtype=UnixTimestamp),
    ],
    source=source("looks"),
)
taste = FeatureView(
    name="taste",
    entities=[user],
    ttl=None,
    schema=[Field(name="interest", dtype=Array(Float32)), Field(name="age", dtype=Float64)],
    source=source("taste"),
)
affinity = FeatureView(
    name="affinity", entities=[user, product], schema=[Field(name="score", dtype=Float32)], source=source("affinity")
)
season = FeatureView(name="season", entities=[], schema=[Field(name="sale", dtype=Float64)], source=source("season"))
pushes = PushSource(name="pushes", batch_source=source("pushed"))
pushed = FeatureView(name="pushed", entities=[product], schema=[Field(name="stock", dtype=Int64)], source=pushes)


@on_demand_feature_view(
    sources=[looks, RequestSource(name="request", schema=[Field(name="position", dtype=Int64)])],
    schema=[Field(name="clicks_by_position", dtype=Float64)],
)
def attention(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"clicks_by_position": inputs["clicks"] / (inputs["position"] + 1)})


prices = FeatureView(
    name="prices",
    entities=[product, user],
    ttl=DAY,
    schema=[Field(name="price", dtype=Float32), Field(name="fee", dtype=Float32)],
    source=source("prices"),
)


@on_demand_feature_view(
    entities=[product, user],
    sources=[prices],
    schema=[Field(name="total", dtype=Float64)],
    write_to_online_store=True,
)
def totals(inputs: pd.DataFrame) -> pd.DataFrame:
    inputs["total"] = inputs["price"] + inputs["fee"]
    return inputs


@on_demand_feature_view(sources=[prices], schema=[Field(name="half", dtype=Float64)])
def halves(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"half": inputs["price"] / 2})


ranking = FeatureService(name="ranking", features=[looks[["vector", "colour"]], taste, season])
OBJECTS = [product, user, looks, taste, affinity, season, pushes, pushed, attention, ranking]


@contextmanager
def project(
    folder: Path, online_store: dict[str, Any], objects: list[Any] | None = None, project: str = "shop"
) -> Iterator[FeatureStore]:
    """Yield a project with these objects applied; tear it down at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    config = RepoConfig(
        project=project,
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/registry.db", "cache_ttl_seconds": 600},
        online_store=online_store,
        offline_store={"type": "feature_repo.stores.offline.DeltaOfflineStore", "path": str(folder / "offline")},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = FeatureStore(config=config)
    store.apply(OBJECTS if objects is None else objects)
    yield store
    store.teardown()


def write(store: FeatureStore, view: str, rows: list[dict[str, Any]]) -> None:
    """Write rows of join keys and features. Their timestamps are NOW unless the rows have others."""
    times = {"event_timestamp": NOW, "created_timestamp": NOW}
    store.write_to_online_store(view, pd.DataFrame([times | row for row in rows]))


def entity(**join_keys: Any) -> EntityKey:
    """Return an entity key of texts and integers."""
    values = [Value(string_val=v) if isinstance(v, str) else Value(int64_val=v) for v in join_keys.values()]
    return EntityKey(join_keys=list(join_keys), entity_values=values)


BEAR = {
    "product_id": "bear",
    "vector": [0.5, 0.25],
    "colour": "brown",
    "title": "毛绒 bear",
    "price": 9.99,
    "clicks": 3,
    "on_sale": True,
    "listed": pd.Timestamp("2026-01-01", tz="UTC"),
}
CAR = BEAR | {"product_id": "car", "vector": [1.0, -1.0], "colour": "red", "title": "car", "clicks": 8}


def get_features(store: FeatureStore, features: Any, rows: list[dict[str, Any]], **options: Any) -> ColumnarResponse:
    response = store.get_online_features(features, rows, **options)
    assert isinstance(response, ColumnarResponse)
    return response


def online(store: FeatureStore) -> PackedOnlineStore:
    result = store._get_provider().online_store
    assert isinstance(result, PackedOnlineStore)
    return result
