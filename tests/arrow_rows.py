"""Write Arrow rows to the online store as the batch engine does."""

import pyarrow as pa
from feast import FeatureStore


def write_arrow(store: FeatureStore, view: str, rows: pa.Table) -> int:
    """Write rows of a view; return how many were written. A newer row of the same entity stays."""
    online = store._get_provider().online_store
    table, packer = online.online_table(store.config), online.packer(store.config, store.get_feature_view(view))
    return table.store.write(*packer.pack(table, rows), packer.view.ttl_us)
