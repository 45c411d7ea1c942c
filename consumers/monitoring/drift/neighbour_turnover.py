"""Neighbour turnover: the share of a product's nearest neighbours that changed with its new version."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.evaluation.nearest_products import compute_shared, find_nearest_products

NEIGHBOURS = 10
"""Nearest products that are compared."""
MIN_PRODUCTS = 20
"""Products of each window that must have an earlier version."""


def compute_turnover(
    old: NDArray[np.float32], new: NDArray[np.float32], pool: NDArray[np.float32], own: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the share of the NEIGHBOURS nearest products of the old vector that the new vector does not have.

    Nearest is by inner product, which is the cosine of unit vectors. Which of equally near products is taken is not
    defined.

    Args:
        old: [m, width], unit vectors of m products' earlier versions.
        new: [m, width], unit vectors of their new versions.
        pool: [p, width], unit vectors of the products among which neighbours are searched.
        own: [m], position of the product itself in the pool, which is never its own neighbour; -1 if it is not there.

    Returns:
        float64 [m], from 0 (the same neighbours) to 1 (all others). NaN for every product if the pool has NEIGHBOURS or
        fewer products.
    """
    if len(pool) <= NEIGHBOURS or not len(old):
        return np.full(len(old), np.nan)
    before, after = (find_nearest_products(vectors, pool, own, NEIGHBOURS) for vectors in (old, new))
    return 1.0 - compute_shared(before, after)
