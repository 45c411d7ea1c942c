"""Compare rows with those that the table `product_embedding` has: by encoder version and content hashes.

For each product, event time and encoder version only the row created last counts: it is the one that is served.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID
from producers.catalogue import row_hash
from producers.catalogue.row_hash import RowHashes
from producers.encoders.pipeline import HASH_COLUMNS

STEP = "embeddings"
"""Name of this step in the run log and the quarantine."""
BACKFILL = "backfill"
"""Name in the run log of a run that writes the version of an upgrade."""
KEY = [PRODUCT_ID, EVENT_TIMESTAMP]

RowIndices = NDArray[np.int64]
Mask = NDArray[np.bool_]


def txn_app_id(encoder_version: str) -> str:
    """Return the Delta application id of an encoder: one name for all commits that add rows of this encoder version.

    Two runs of one encoder that commit under it cannot both add the same rows.
    """
    return f"{STEP} {encoder_version}"


def find_existing(settings: Settings, rows: pa.Table, encoder_version: str, *, few: bool = False) -> tuple[Mask, Mask]:
    """Return which rows the table `product_embedding` has already.

    Args:
        settings: the deployment.
        rows: n rows with product_id, event_timestamp, image_hash and title_hash; may be empty.
        encoder_version: the encoder, as `name@fingerprint`.
        few: read only rows of these products, not all rows of their time range. Faster for a small n.

    Returns:
        Two bool arrays [n], in the order of `rows`. The first is whether there is a row of this encoder for the same
        product and event time. The second is whether the one created last also has the same content hashes, or none at
        all; rows have none if they were written before hashes were stored. Both are False throughout if there is no
        table yet.
    """
    path = settings.table(schema.EMBEDDING_TABLE)
    if not delta.exists(path) or not len(rows):
        return np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    where = build_filter(rows, few) & (pc.field("encoder_version") == encoder_version)
    stored = delta.read(path, [*KEY, CREATED_TIMESTAMP, *HASH_COLUMNS], where=where)
    latest = find_latest(stored)
    index = row_hash.find_positions(hash_keys(rows), hash_keys(stored)[latest])
    exists = index >= 0
    is_same, stored_contents = exists.copy(), hash_contents(stored)[latest][index[exists]]
    is_equal = (hash_contents(rows)[exists] == stored_contents).all(axis=1)
    is_same[exists] = is_equal | (stored_contents == NO_CONTENT).all(axis=1)
    return exists, is_same


def build_filter(rows: pa.Table, few: bool) -> pc.Expression:
    """Return a filter for the event time range of some rows, both ends included, and for their products if `few`.

    Args:
        rows: at least one row with product_id and event_timestamp.
        few: whether to filter by product too, which is faster if there are few.
    """
    bounds, event = pc.min_max(rows[EVENT_TIMESTAMP]), pc.field(EVENT_TIMESTAMP)
    within = (event >= bounds["min"]) & (event <= bounds["max"])
    return within & pc.field(PRODUCT_ID).isin(pc.unique(rows[PRODUCT_ID])) if few else within


def find_latest(rows: pa.Table) -> RowIndices:
    """Return the position in `rows`, from 0, of the row created last of each product and event time, as int64.

    The positions are in ascending order of `hash_keys`, which is not that of the rows. Of rows created at the same
    time, the last one in `rows` is taken.

    Args:
        rows: rows with product_id, event_timestamp and created_timestamp; may be empty.
    """
    key = hash_keys(rows)
    order = row_hash.sort_order(key, rows[CREATED_TIMESTAMP].cast(pa.int64()).to_numpy())
    return order[row_hash.find_last_positions(key, order)]


def hash_keys(rows: pa.Table) -> RowHashes:
    """Return a digest of each row's product and event time: uint64 [n, 2], in the order of the rows."""
    event = rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    return row_hash.combine_columns([row_hash.hash_texts(rows[PRODUCT_ID]), row_hash.hash_numbers(event)])


def hash_contents(rows: pa.Table) -> RowHashes:
    """Return a digest of each row's HASH_COLUMNS: uint64 [n, 2], in the order of the rows.

    Two digests are equal if both hashes are; a null equals only a null. If both are null, it is NO_CONTENT.
    """
    return row_hash.combine_columns([row_hash.from_arrow(rows[name]) for name in HASH_COLUMNS])


NO_CONTENT = row_hash.combine_columns([np.zeros((1, 2), np.uint64)] * len(HASH_COLUMNS))[0]
"""`hash_contents` of a row without hashes."""
