"""Deployments with their rows in their own Redis: ours, and optionally stock Feast's."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from feast import FeatureService, FeatureStore

from feature_repo import definitions
from feature_repo.views.affinity import user_product_affinity
from feature_repo.views.product import product_codes, product_embedding, product_tags
from feature_repo.views.user import user_interest
from tests import servers
from tests.arrow_rows import write_arrow
from tests.benchmarks.serving.rows import make_tables

REDIS = "feature_repo.stores.online.RedisOnlineStore"
SERVICE = "served"
STORED = [product_embedding[["fused_vector", "encoder_version"]], product_tags, product_codes, user_interest]
STOCK_OBJECTS = ("product", "user", "product_embedding", "product_tags", "product_codes", "user_interest")


@contextmanager
def open_deployments(products: int, users: int, *, stock: bool = False) -> Iterator[tuple[Path, servers.RedisServer]]:
    """Yield a folder with a deployment `ours`, and `stock` with stock Feast's store if asked, and their one Redis."""
    with tempfile.TemporaryDirectory() as folder, servers.redis_server(Path(folder) / "redis") as server:
        root = Path(folder)
        rows = make_tables(products, users)
        make_deployment(root, "ours", {"type": REDIS, "connection_string": server.address}, rows)
        if stock:
            make_deployment(root, "stock", {"type": "redis", "connection_string": server.address}, rows)
        yield root, server


def make_deployment(root: Path, project: str, online_store: Mapping[str, Any], rows: Mapping[str, pa.Table]) -> None:
    """Create a deployment in the folder `root`/`project` and fill its online store."""
    folder = root / project
    folder.mkdir()
    config = {
        "project": project,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{folder}/registry.db"},
        "offline_store": {
            "type": "feature_repo.stores.offline.DeltaOfflineStore",
            "path": str(folder / "offline"),
        },
        "online_store": dict(online_store),
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    store = FeatureStore(repo_path=str(folder))
    ours = online_store["type"] == REDIS
    objects = [getattr(definitions, name) for name in definitions.__all__ if ours or name in STOCK_OBJECTS]
    store.apply(
        [*objects, FeatureService(name=SERVICE, features=[*STORED, *([user_product_affinity] if ours else [])])]
    )
    for view, table in rows.items():
        for batch in table.to_batches(2_000):
            if ours:
                write_arrow(store, view, pa.table(batch))
            else:
                store.write_to_online_store(view, batch.to_pandas())
