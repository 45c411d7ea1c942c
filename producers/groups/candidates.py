"""Candidate pairs: products that are near in one of several spaces.

Each space misses pairs that another finds. The learned space of the pictures finds two photographs of one pattern, the
fused vector (image and text 1:1) the same product, the similar vector (7:3) a like one, and the text vector a product
without a usable picture.
"""

from collections.abc import Mapping

import faiss
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]

TOP_K = 30
"""Nearest products of each space."""


def find_candidates(spaces: Mapping[str, Floats], queries: Int64, *, top_k: int = TOP_K) -> tuple[Int64, Int64]:
    """Return the distinct pairs of each query and its nearest products of every space: rows with left < right, sorted.

    The search is exact.

    Args:
        spaces: unit vectors [n, d] of n products by name, NaN where there is none.
        queries: rows of the products whose neighbours are wanted.
        top_k: neighbours in each space, at least 1; fewer if there are fewer products.
    """
    found = [np.empty(0, np.int64)]
    products = max((len(vectors) for vectors in spaces.values()), default=0)
    for vectors in spaces.values():
        is_known = np.asarray(~np.isnan(vectors).any(axis=1), bool)
        rows, asked = np.flatnonzero(is_known), queries[is_known[queries]]
        if not len(asked):
            continue
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors[rows]))
        _, near = index.search(np.ascontiguousarray(vectors[asked]), min(top_k + 1, len(rows)))
        left, right = np.repeat(asked, near.shape[1]), rows[near.ravel()]
        is_pair = left != right
        found.append(_encode(left[is_pair], right[is_pair], products))
    keys = np.unique(np.concatenate(found))
    return keys // max(products, 1), keys % max(products, 1)


def list_missing_pairs(left: Int64, right: Int64, members: list[Int64], products: int) -> tuple[Int64, Int64]:
    """Return the pairs within each set of members that are not among the given pairs, sorted.

    Args:
        left: rows, smaller than those of `right`.
        right: rows.
        members: sets of rows.
        products: number of products.
    """
    sides = [(rows[a], rows[b]) for rows in members for a, b in [np.triu_indices(len(rows), 1)]]
    keys = [_encode(a, b, products) for a, b in sides]
    missing = np.setdiff1d(np.concatenate([np.empty(0, np.int64), *keys]), _encode(left, right, products))
    return missing // max(products, 1), missing % max(products, 1)


def _encode(left: Int64, right: Int64, products: int) -> Int64:
    """Return one number for each pair, the same for both orders of its sides."""
    return np.minimum(left, right) * products + np.maximum(left, right)
