"""The products whose pictures or titles are most like a vector: that of another product, or of a picture."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from consumers.search.selection import COLLAPSE_DEPTH, collapse_duplicates, explain_empty
from feature_repo.errors import NotFoundError
from feature_repo.index.filters import ProductFilter
from feature_repo.index.nearest import Ints, Vectors
from feature_repo.index.product_index import ProductIndex
from feature_repo.schema import PRODUCT_ID

VECTORS = ("similar_vector", "image_vector", "fused_vector", "text_vector")
"""Vectors by which products are like each other, in the order of preference."""


@dataclass(frozen=True)
class SimilarProducts:
    """The nearest products of a vector, best first."""

    products: pa.Table
    """INDEX_ROWS and `rank` (from 1), `cosine`, `duplicates` (ids collapsed into this one, separated by blanks)."""
    allowed: int
    """Number of products that the filter leaves."""


def find_similar(
    index: ProductIndex,
    vector: str,
    query: Vectors,
    *,
    where: ProductFilter,
    top_k: int,
    without: str | None = None,
    collapse: bool = False,
) -> SimilarProducts:
    """Return the products nearest to a vector.

    Args:
        index: the index.
        vector: name of the vector that is compared.
        query: float32 [d], of unit length.
        where: which products may be returned.
        top_k: most products.
        without: id of a product that is not returned.
        collapse: of near-duplicates, return the best only and name the others.

    Raises:
        NotFoundError: no product passes the filter, or the index has no such vector.
        InvalidInputError: the query has another width.
    """
    selection = index.select(where)
    if not len(selection):
        raise NotFoundError(explain_empty(index, where))
    depth = top_k * COLLAPSE_DEPTH if collapse else top_k
    rows, cosines = index.search(vector, query, depth + 1, selection)
    own = index.find_rows([without])[0] if without is not None else -1
    rows, cosines = rows[rows != own], cosines[rows != own]
    order: Ints = np.arange(len(rows))
    duplicates: dict[int, list[int]] = {}
    if collapse:
        order, duplicates = collapse_duplicates(index, rows, order, top_k)
    order = order[:top_k]
    products = index.take(rows[order])
    names = [
        " ".join(index.take(rows[duplicates[one]], [PRODUCT_ID])[PRODUCT_ID].to_pylist()) if one in duplicates else None
        for one in order.tolist()
    ]
    products = products.append_column("rank", pa.array(np.arange(1, len(order) + 1)))
    products = products.append_column("cosine", pa.array(cosines[order].astype(np.float64)))
    return SimilarProducts(products.append_column("duplicates", pa.array(names, pa.string())), len(selection))


def find_vector(index: ProductIndex, product_id: str) -> tuple[str, Vectors]:
    """Return the name and value, float32 [d], of the first of VECTORS that the index has for a product.

    Raises:
        NotFoundError: the product is not in the index, or has no vector.
    """
    row = index.find_rows([product_id])
    for name in VECTORS:
        if row[0] >= 0 and name in index.vectors:
            vector = index.take_vectors(name, row)[0]
            if not np.isnan(vector[0]):
                return name, vector
    raise NotFoundError(f"product {product_id!r} has no vector in the index")
