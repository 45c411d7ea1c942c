"""How many of a product's nearest neighbours a new version of it lost."""

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 10
FEWEST = 20
"""Products of each side that must have an earlier version, for their churn to be compared."""


def churn(
    old: NDArray[np.float32], new: NDArray[np.float32], pool: NDArray[np.float32], own: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[m], the share of the NEIGHBOURS nearest products of the old vector that are not those of the new one.

    Args:
        old, new: [m, width], unit vectors of m products, earlier and now.
        pool: [p, width], unit vectors of the products among which neighbours are looked for.
        own: [m], which of the pool is the product itself, and so none of its neighbours; -1 if it is not in it.
    """
    if len(pool) <= NEIGHBOURS or not len(old):
        return np.full(len(old), np.nan)
    before, after = _nearest(old, pool, own), _nearest(new, pool, own)
    kept = (before[:, :, None] == after[:, None, :]).any(axis=2).mean(axis=1)
    return 1.0 - kept


def _nearest(vectors: NDArray[np.float32], pool: NDArray[np.float32], own: NDArray[np.int64]) -> NDArray[np.int64]:
    similarity = vectors @ pool.T
    mine = np.flatnonzero(own >= 0)
    similarity[mine, own[mine]] = -np.inf
    return np.argpartition(-similarity, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
