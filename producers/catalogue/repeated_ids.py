"""Product ids that several rows of a table have, and ids that are one only when they are normalized."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import text
from feature_repo.offline.quarantine import RejectedRow
from producers.catalogue import row_hash
from producers.catalogue.row_hash import RowHashes

DUPLICATE_ID = "product id is repeated: its newest row was used"
SAME_LOOKING_ID = "product id is spelled in several ways that are one id: none of its rows was used"


def find_repeated(id_hashes: RowHashes, is_valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return [n] whether a row is valid and another valid row has the same product id."""
    rows = np.flatnonzero(is_valid)
    order = row_hash.sort_order(id_hashes[rows])
    ascending = id_hashes[rows[order]]
    is_repeat = (ascending[1:] == ascending[:-1]).all(axis=1)
    is_repeated = np.zeros(len(is_valid), bool)
    is_repeated[rows[order[1:][is_repeat]]] = is_repeated[rows[order[:-1][is_repeat]]] = True
    return is_repeated


def find_collisions(
    product_ids: pa.ChunkedArray, repeated: NDArray[np.int64], spellings: dict[int, str]
) -> dict[int, RejectedRow]:
    """Return the rows whose product id is spelled in another way in another row, each with its refusal.

    Which of the products that the shop takes for two is meant cannot be known, so all rows of such an id are refused.

    Args:
        product_ids: [n] normalized ids.
        repeated: numbers of the rows with an id that another valid row has.
        spellings: row number -> id as it came, for ids that were normalized.
    """
    if not spellings:
        return {}
    rows_by_id: dict[str, dict[str, list[int]]] = {}
    for row, product in zip(repeated.tolist(), product_ids.take(pa.array(repeated)).to_pylist(), strict=True):
        rows_by_id.setdefault(product, {}).setdefault(spellings.get(row, product), []).append(row)
    return {
        row: RejectedRow(product, schema.PRODUCT_ID, SAME_LOOKING_ID, " and ".join(map(text.quote_text, by_spelling)))
        for product, by_spelling in rows_by_id.items()
        if len(by_spelling) > 1
        for rows in by_spelling.values()
        for row in rows
    }
