"""The rows of embeddings made so far: of which encoder and which contents the last created of a product and time is."""

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
KEY = [PRODUCT_ID, EVENT_TIMESTAMP]

RowIndices = NDArray[np.int64]
Mask = NDArray[np.bool_]


def txn_app_id(encoder_version: str) -> str:
    """Delta's name for the commits of an encoder's rows: each adds what it did not find, and depends on the others."""
    return f"{STEP} {encoder_version}"


def find_existing(settings: Settings, rows: pa.Table, encoder_version: str, *, few: bool = False) -> tuple[Mask, Mask]:
    """Which rows have one of this encoder in the table, and no other encoder's after it: the last created is served.

    Args:
        rows: KEY and HASHES [n].
        few: they are so few that the table is asked for their products rather than for all of their time.

    Returns:
        bool [n] twice: whether the last created of the same product and time is of this encoder; and whether it came of
        the same contents too, or does not say of which, as rows from before hashes were kept.
    """
    path = settings.table(schema.EMBEDDING_TABLE)
    if not delta.exists(path) or not len(rows):
        return np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    made = delta.read(path, [*KEY, CREATED_TIMESTAMP, "encoder_version", *HASH_COLUMNS], where=build_filter(rows, few))
    last = find_latest(made)
    last = last[pc.equal(made["encoder_version"], encoder_version).to_numpy()[last]]
    place = row_hash.find_positions(hash_keys(rows), hash_keys(made)[last])
    there = place >= 0
    same, came = there.copy(), hash_contents(made)[last][place[there]]
    same[there] = (hash_contents(rows)[there] == came).all(axis=1) | (came == NO_CONTENT).all(axis=1)
    return there, same


def has_newer_rows_of_others(settings: Settings, encoder_version: str, seen: int | None) -> bool:
    """Whether the table has rows of another encoder that came since its version `seen`, be they compacted since.

    By Delta's own statistics: a file that holds one encoder's rows alone is not opened.
    """
    path = settings.table(schema.EMBEDDING_TABLE)
    if not delta.exists(path):
        return False
    came = delta.open_added_rows(path, delta.open_table(path), seen)
    return came.count_rows(filter=pc.field("encoder_version") != encoder_version) > 0


def build_filter(rows: pa.Table, few: bool) -> pc.Expression:
    """Of which rows of a table must be true that they are of the times, and of the products if few, of some rows."""
    bounds, event = pc.min_max(rows[EVENT_TIMESTAMP]), pc.field(EVENT_TIMESTAMP)
    within = (event >= bounds["min"]) & (event <= bounds["max"])
    return within & pc.field(PRODUCT_ID).isin(pc.unique(rows[PRODUCT_ID])) if few else within


def find_latest(rows: pa.Table) -> RowIndices:
    """The last created row of each product and time, in ascending order of their `keys`."""
    key = hash_keys(rows)
    order = row_hash.sort_order(key, rows[CREATED_TIMESTAMP].cast(pa.int64()).to_numpy())
    return order[row_hash.find_last_positions(key, order)]


def hash_keys(rows: pa.Table) -> RowHashes:
    """A digest of each row's product and time."""
    event = rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    return row_hash.combine_columns([row_hash.hash_texts(rows[PRODUCT_ID]), row_hash.hash_numbers(event)])


def hash_contents(rows: pa.Table) -> RowHashes:
    """A digest of each row's HASHES; UNSAID where it has none."""
    return row_hash.combine_columns([row_hash.from_arrow(rows[name]) for name in HASH_COLUMNS])


NO_CONTENT = row_hash.combine_columns([np.zeros((1, 2), np.uint64)] * len(HASH_COLUMNS))[0]
"""The contents of a row without hashes."""
