"""Compare rows with those that the table `product_embedding` has: by encoder version and content hashes.

For each product, event time and encoder version only the row created last counts: it is the one that is served.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import take
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
    if not len(rows):
        return np.zeros(0, bool), np.zeros(0, bool)
    where = build_filter(rows, few)
    return find_existing_keys(settings, hash_keys(rows), hash_contents(rows), encoder_version, where)


def find_existing_keys(
    settings: Settings, keys: RowHashes, contents: RowHashes, encoder_version: str, where: pc.Expression
) -> tuple[Mask, Mask]:
    """Do what `find_existing` does, for rows whose digests alone are in memory.

    Args:
        settings: the deployment.
        keys: uint64 [n, 2], of `hash_keys`.
        contents: uint64 [n, 2], of `hash_contents`.
        encoder_version: the encoder, as `name@fingerprint`.
        where: filter that passes all stored rows of these keys.
    """
    path = settings.table(schema.EMBEDDING_TABLE)
    if not delta.exists(path) or not len(keys):
        return np.zeros(len(keys), bool), np.zeros(len(keys), bool)
    columns = [*KEY, CREATED_TIMESTAMP, *HASH_COLUMNS]
    of_encoder = where & (pc.field("encoder_version") == encoder_version)
    none = np.empty((0, 2), np.uint64)
    parts = [(none, np.empty(0, np.int64), none)]
    for batch in take.scan(delta.open_dataset(path, columns), columns, of_encoder).to_batches():
        rows = pa.Table.from_batches([batch])
        parts.append((hash_keys(rows), rows[CREATED_TIMESTAMP].cast(pa.int64()).to_numpy(), hash_contents(rows)))
    stored, created_us, stored_contents = (np.concatenate(one) for one in zip(*parts, strict=True))
    latest = find_latest_keys(stored, created_us)
    index = row_hash.find_positions(keys, stored[latest])
    exists = index >= 0
    is_same, latest_contents = exists.copy(), stored_contents[latest][index[exists]]
    is_equal = (contents[exists] == latest_contents).all(axis=1)
    is_same[exists] = is_equal | (latest_contents == NO_CONTENT).all(axis=1)
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
    return find_latest_keys(hash_keys(rows), rows[CREATED_TIMESTAMP].cast(pa.int64()).to_numpy())


def find_latest_keys(keys: RowHashes, created_us: NDArray[np.int64]) -> RowIndices:
    """Do what `find_latest` does, given the digests [n, 2] and created timestamps [n] of rows."""
    order = row_hash.sort_order(keys, created_us)
    return order[row_hash.find_last_positions(keys, order)]


def hash_keys(rows: pa.Table) -> RowHashes:
    """Return a digest of each row's product and event time: uint64 [n, 2], in the order of the rows."""
    event = rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    return row_hash.combine_columns([row_hash.hash_texts(rows[PRODUCT_ID]), row_hash.hash_numbers(event)])


def hash_contents(rows: pa.Table) -> RowHashes:
    """Return a digest of each row's HASH_COLUMNS: uint64 [n, 2], in the order of the rows.

    Two digests are equal if both hashes are; a null equals only a null. If both are null, it is NO_CONTENT.
    """
    return row_hash.combine_columns([row_hash.from_arrow(rows[name]) for name in HASH_COLUMNS])


def hash_versions(keys: RowHashes, contents: RowHashes) -> RowHashes:
    """Return a digest of each row's product, event time and contents, from `hash_keys` and `hash_contents`: [n, 2]."""
    return row_hash.combine_columns([keys, contents])


NO_CONTENT = row_hash.combine_columns([np.zeros((1, 2), np.uint64)] * len(HASH_COLUMNS))[0]
"""`hash_contents` of a row without hashes."""
