"""A small Feast project on Delta tables, and what must be online of it."""

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
"""A version of a product: who, and the hours of its event and of its creation; its features tell both."""


def make(folder: Path, online_store: dict[str, Any], *, ray: str | None = None) -> None:
    """Write the project's feature_store.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    offline_store = SETTINGS["offline_store"] | ({"ray": ray} if ray else {})
    settings = SETTINGS | {"online_store": online_store, "offline_store": offline_store}
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(settings))


def open_store(folder: Path) -> FeatureStore:
    return open_feature_store(load(folder / "feature_store.yaml"))


def append_looks(folder: Path, looks: Sequence[Look]) -> None:
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


def newest(looks: Sequence[Look], *, until: float = 1e6) -> dict[str, tuple[int, int]]:
    """Brute force: of each product the event and creation of its newest version."""
    found: dict[str, tuple[int, int]] = {}
    for product, event, created in looks:
        if product is not None and event is not None and event <= until:
            found[product] = max(found.get(product, (-1, -1)), (event, created))
    return found


def online_looks(store: FeatureStore, products: Sequence[str]) -> dict[str, tuple[int, int]]:
    """What is online of the products, as their features tell it; absent ones left out."""
    answer = store.get_online_features(
        ["looks:vector", "looks:colour"], [{"product_id": product} for product in products]
    ).to_dict()
    found = {}
    for product, vector, colour in zip(answer["product_id"], answer["vector"], answer["colour"], strict=True):
        if vector is not None:
            assert colour == f"colour {int(vector[1]) % 5}", "a row is of one version"
            found[product] = (int(vector[0]), int(vector[1]))
    return found


def environment() -> dict[str, str]:
    """The environment in which a process finds this project."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
