"""Which products have left the day's table, and which are back: rows of the table `product_active`."""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import text
from feature_repo.errors import InvalidInputError
from feature_repo.offline.quarantine import RejectedRow
from producers.catalogue import row_hash
from producers.catalogue.stored_versions import StoredVersions
from producers.catalogue.summary import MAX_GONE_SHARE, MIN_GONE


def find_named(stored: StoredVersions, misshapen: Sequence[RejectedRow], delimiters: str) -> NDArray[np.int64]:
    """Return the stored products whose id is a field of a row that does not fit the header, as product numbers.

    In which field of such a row the id is cannot be known, so a product that any field names counts as present.
    """
    lines = [re.split(f"[{re.escape(delimiters)}]", row.value or "") for row in misshapen]
    fields = pa.array({field.strip(' "') for line in lines for field in line}, pa.string())
    product = stored.find_products(row_hash.hash_texts(pa.chunked_array([text.normalize_ids(fields)])))
    return product[product >= 0]


def find_moves(
    stored: StoredVersions, present: NDArray[np.int64], gone_before: pa.ChunkedArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the stored products that are newly gone, and those that have returned, as product numbers.

    Args:
        stored: the stored versions.
        present: product numbers of the table's rows, in any order and with repeats; -1 for new products.
        gone_before: ids of the products that were gone before.
    """
    is_present, was_active = np.zeros(len(stored.products), bool), np.ones(len(stored.products), bool)
    is_present[present[present >= 0]] = True
    before = stored.find_products(row_hash.hash_texts(gone_before))
    was_active[before[before >= 0]] = False
    return np.flatnonzero(was_active & ~is_present), np.flatnonzero(~was_active & is_present)


def check_shrinkage(file: Path, gone: int, active: int) -> None:
    """Raise InvalidInputError if more than MAX_GONE_SHARE of the active products, and MIN_GONE of them, are gone."""
    if gone >= MIN_GONE and gone > MAX_GONE_SHARE * active:
        raise InvalidInputError(
            f"{file}: {gone:,} of {active:,} active products are not in it; give --partial if it is a part of the "
            "catalogue, or --allow-shrink if they are gone; nothing was written"
        )


def build_activity_rows(
    stored: StoredVersions, gone: NDArray[np.int64], returned: NDArray[np.int64], now: datetime
) -> pa.Table:
    """Return rows of schema.PRODUCT_ACTIVE: first the gone products, then the returned ones."""
    product_ids = stored.take_product_ids(np.concatenate([gone, returned]))
    is_active = pa.array(np.repeat([False, True], [len(gone), len(returned)]))
    timestamps = pa.repeat(pa.scalar(now, schema.TIMESTAMP), len(product_ids))
    return pa.table([product_ids, is_active, timestamps, timestamps], schema=schema.PRODUCT_ACTIVE)
