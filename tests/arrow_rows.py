"""Rows of Arrow put online at once, as the batch engine packs and writes them."""

import pyarrow as pa
from feast import FeatureStore


def write_arrow(store: FeatureStore, view: str, rows: pa.Table) -> int:
    """Write rows of a view; returns how many were, for a newer row of the same entity stays."""
    online = store._get_provider().online_store
    table, packer = online.online_table(store.config), online.packer(store.config, store.get_feature_view(view))
    return table.store.write(*packer.pack(table, rows), packer.view.ttl_us)
