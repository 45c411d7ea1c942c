"""What is new in a table of products: each row against the version of it that is known."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.tables import checks

CONTENT = ("title", "image", "image_bytes", "category", "brand", "price")
"""Columns that make a version: where all are equal, a later time alone does not."""


def compare(arriving: pa.Table, known: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Which arriving products are known, and which are as the version valid at their time already says.

    Args:
        arriving: one row a product.
        known: versions of any products, any order; of versions with one event timestamp the last created is valid.

    Returns:
        bool [arriving], bool [arriving].
    """
    known = known.filter(pc.is_in(known[schema.PRODUCT_ID], value_set=arriving[schema.PRODUCT_ID].combine_chunks()))
    product = pc.index_in(known[schema.PRODUCT_ID], value_set=arriving[schema.PRODUCT_ID].combine_chunks()).to_numpy()
    is_known = np.zeros(arriving.num_rows, dtype=bool)
    is_known[product] = True
    since, created = (
        known[name].cast(pa.int64()).to_numpy() for name in (schema.EVENT_TIMESTAMP, schema.CREATED_TIMESTAMP)
    )
    at = arriving[schema.EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    earlier = np.flatnonzero(since <= at[product])
    earlier = earlier[np.lexsort((created[earlier], since[earlier]))]
    valid = np.full(arriving.num_rows, -1)
    valid[product[earlier]] = earlier  # of repeated indices NumPy keeps the last
    compared = np.flatnonzero(valid >= 0)
    before, after = known.take(pa.array(valid[compared])), arriving.take(pa.array(compared))
    same = np.ones(len(compared), dtype=bool)
    for name in CONTENT:
        both_null = checks.mask(pc.and_(pc.is_null(before[name]), pc.is_null(after[name])))
        same &= checks.mask(pc.equal(before[name], after[name])) | both_null
    is_unchanged = np.zeros(arriving.num_rows, dtype=bool)
    is_unchanged[compared] = same
    return is_known, is_unchanged
