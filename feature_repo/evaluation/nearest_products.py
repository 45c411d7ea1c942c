"""Nearest products by exact search, and how many of them two searches share."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]


def find_nearest_products(vectors: Vectors, pool: Vectors, own: Ints, top_k: int) -> Ints:
    """Return the positions in a pool of the products nearest to each vector, int64 [n, top_k], in no order.

    Nearest is by inner product, which is the cosine of unit vectors. Which of equally near products is taken is not
    defined.

    Args:
        vectors: unit vectors [n, width].
        pool: unit vectors of the products that are searched [p, width].
        own: [n], position in the pool of the vector's own product, which is never returned; -1 if it is not there.
        top_k: number of products, at least 1 and less than p.
    """
    similarity = vectors @ pool.T
    in_pool = np.flatnonzero(own >= 0)
    similarity[in_pool, own[in_pool]] = -np.inf
    return np.argpartition(-similarity, top_k - 1, axis=1)[:, :top_k]


def compute_shared(one: Ints, other: Ints) -> NDArray[np.float64]:
    """Return the share of each row's positions [n, k] that the same row of another array [n, m] has too, [n]."""
    return (one[:, :, None] == other[:, None, :]).any(axis=2).mean(axis=1)
