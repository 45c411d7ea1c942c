"""Which products of a catalogue are active: on sale as far as the last full table of products said.

The table `product_active` (schema.PRODUCT_ACTIVE) holds no row for a product that never went, so that it grows with
what goes and comes back, and not with the catalogue.
"""

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ACTIVE, PRODUCT_ID, TIMESTAMP


def gone(path: Path, at: datetime | None = None) -> pa.ChunkedArray:
    """The products that went and have not come back; string, each once, in no order.

    Args:
        path: of the table `product_active`, which may not exist: then none is gone.
        at: as of when, inclusive; None for the newest that is known.
    """
    if not delta.exists(path):
        return pa.chunked_array([], pa.string())
    rows = delta.read(path, PRODUCT_ACTIVE.names)
    if at is not None:
        rows = rows.filter(pc.field(EVENT_TIMESTAMP) <= pa.scalar(at, TIMESTAMP))
    newest_last = [(EVENT_TIMESTAMP, "ascending"), (CREATED_TIMESTAMP, "ascending")]
    newest = rows.sort_by(newest_last).group_by(PRODUCT_ID, use_threads=False).aggregate([("active", "last")])
    return newest.filter(pc.invert(newest["active_last"]))[PRODUCT_ID]


def active(catalogue: Path, path: Path, at: datetime) -> pa.Array:
    """The products of a catalogue that are on sale at a time: known by then, and not gone by then; each once."""
    rows = delta.read(catalogue, [PRODUCT_ID, EVENT_TIMESTAMP])
    known = pc.unique(rows.filter(pc.field(EVENT_TIMESTAMP) <= pa.scalar(at, TIMESTAMP))[PRODUCT_ID].drop_null())
    return known.filter(pc.invert(pc.is_in(known, value_set=gone(path, at).combine_chunks())))
