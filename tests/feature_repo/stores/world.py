"""A small Feast project on Delta tables, and the rows that must be online."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.data_format import DeltaFormat
from feast.types import Array, Float32, Int64, String
from feast.value_type import ValueType

from feature_repo.config import load
from feature_repo.location import BucketPath, Location
from feature_repo.offline import delta
from feature_repo.stores.feature_store import open_feature_store

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
STAMP = pa.timestamp("us", tz="UTC")
SETTINGS: dict[str, Any] = {
    "project": "shop",
    "provider": "local",
    "registry": {
        "registry_type": "sql",
        "path": "sqlite:///registry.db",
        "serve_features_while_materializing": True,
    },
    "offline_store": {"type": "feature_repo.stores.offline.DeltaOfflineStore", "path": "tables"},
    "batch_engine": {"type": "feature_repo.stores.engine.ColumnarEngine"},
    "entity_key_serialization_version": 3,
}


def source(name: str, **options: Any) -> FileSource:
    return FileSource(
        name=name,
        path=name,
        file_format=DeltaFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        **options,
    )


product = Entity(name="product", join_keys=["product_id"], value_type=ValueType.STRING)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
looks = FeatureView(
    name="looks",
    entities=[product],
    ttl=timedelta(days=36_500),
    schema=[
        Field(name="vector", dtype=Array(Float32)),
        Field(name="colour", dtype=String, tags={"storage": "dictionary"}),
    ],
    source=source("looks"),
)
affinity = FeatureView(
    name="affinity",
    entities=[user, product],
    ttl=timedelta(days=36_500),
    schema=[Field(name="clicks", dtype=Int64)],
    source=source("affinity", field_mapping={"n_clicks": "clicks"}),
)
season = FeatureView(
    name="season",
    entities=[],
    ttl=timedelta(days=36_500),
    schema=[Field(name="sale", dtype=Float32)],
    source=source("season"),
)
OBJECTS = [product, user, looks, affinity, season]

Look = tuple[str | None, int | None, int]
"""A version of a product: its id, and the hours of its event and of its creation, which its features carry."""


def make(
    folder: Path, online_store: dict[str, Any], *, ray: str | None = None, bucket: BucketPath | None = None
) -> None:
    """Write the project's feature_store.yaml; the tables are in the bucket, or beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    offline_store = SETTINGS["offline_store"] | ({"ray": ray} if ray else {})
    if bucket is not None:
        offline_store |= {"path": bucket.url, "storage_options": dict(bucket.options), "local_path": "local"}
    settings = SETTINGS | {"online_store": online_store, "offline_store": offline_store}
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(settings))


def open_store(folder: Path) -> FeatureStore:
    return open_feature_store(load(folder / "feature_store.yaml"))


def append_looks(folder: Location, looks: Sequence[Look]) -> None:
    """Append versions of products to the offline table, in one commit."""
    rows = pa.table(
        {
            "product_id": pa.array([product for product, _, _ in looks], pa.string()),
            "vector": pa.array([[float(event or 0), float(created)] for _, event, created in looks], vectors),
            "colour": pa.array([f"colour {created % 5}" for _, _, created in looks], pa.string()),
            "event_timestamp": pa.array([None if event is None else at(event) for _, event, _ in looks], STAMP),
            "created_timestamp": pa.array([at(created) for _, _, created in looks], STAMP),
        }
    )
    delta.append(folder / "tables" / "looks", rows)


vectors = pa.list_(pa.float32())


def at(hours: float) -> datetime:
    return START + hours * HOUR


def find_newest(looks: Sequence[Look], *, until: float = 1e6) -> dict[str, tuple[int, int]]:
    """Find the hours of event and creation of each product's newest version by brute force."""
    newest: dict[str, tuple[int, int]] = {}
    for product, event, created in looks:
        if product is not None and event is not None and event <= until:
            newest[product] = max(newest.get(product, (-1, -1)), (event, created))
    return newest


def online_looks(store: FeatureStore, products: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Read the hours of event and creation of the products' online rows from their features; omit absent products."""
    features = store.get_online_features(
        ["looks:vector", "looks:colour"], [{"product_id": product} for product in products]
    ).to_dict()
    rows = {}
    for product, vector, colour in zip(features["product_id"], features["vector"], features["colour"], strict=True):
        if vector is not None:
            assert colour == f"colour {int(vector[1]) % 5}", "all features of a row are of one version"
            rows[product] = (int(vector[0]), int(vector[1]))
    return rows


def environment() -> dict[str, str]:
    """Return the environment of a process that imports this repository."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
