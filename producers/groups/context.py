"""The context of a pair: features from the other candidates of its two products.

A pair is less likely the same product if either of the two has a more probable partner, and more likely if both are
probably the same as a third product. A second, small classifier decides each pair from its own probability and its
context. It uses no label of another pair.
"""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]

CONTEXT_FEATURES = (
    "probability",
    "rank_low",  # how many pairs of a product are more probable: the smaller of the two products' numbers
    "rank_high",
    "best_other_low",  # the most probable other pair of a product
    "best_other_high",
    "sum_other_low",  # the sum of the probabilities of a product's other pairs
    "sum_other_high",
    "shared",  # sum over third products of the product of both probabilities
    "best_shared",  # the largest of those products
)
WORTH_COUNTING = 0.01
"""Lowest probability at which a pair counts in the context of others; less probable pairs need not be stored."""


def compute_context(left: Int64, right: Int64, probability: Floats, products: int, chosen: Int64) -> Floats:
    """Return float32 [c, len(CONTEXT_FEATURES)] of c of m distinct pairs.

    Args:
        left: [m], rows of products.
        right: [m], likewise.
        probability: [m], of each pair on its own.
        products: number of products.
        chosen: [c], positions of the pairs whose features are wanted; all m are their context.
    """
    pairs = len(left)
    if not len(chosen):
        return np.empty((0, len(CONTEXT_FEATURES)), np.float32)
    product = np.concatenate([left, right])
    value = np.tile(np.where(probability >= WORTH_COUNTING, probability, 0).astype(np.float64), 2)
    order = np.lexsort((-value, product))
    starts = np.flatnonzero(np.append(True, np.diff(product[order]) != 0))
    counts = np.diff(np.append(starts, len(order)))
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    ranked = value[order]
    second = np.where(counts > 1, ranked[np.minimum(starts + 1, len(ranked) - 1)], 0)
    best_other = np.where(rank == 0, np.repeat(second, counts), np.repeat(ranked[starts], counts))
    sum_other = np.repeat(np.add.reduceat(ranked, starts), counts) - ranked
    sides = {}
    for name, values in (("rank", rank), ("best_other", best_other), ("sum_other", sum_other)):
        by_side = np.empty(2 * pairs)
        by_side[order] = values
        first, second = by_side[:pairs][chosen], by_side[pairs:][chosen]
        sides[f"{name}_low"] = np.minimum(first, second)
        sides[f"{name}_high"] = np.maximum(first, second)
    strong = value > 0
    partners = np.concatenate([right, left])
    graph = sp.csr_matrix((value[strong], (product[strong], partners[strong])), shape=(products, products))
    shared = graph[left[chosen]].multiply(graph[right[chosen]]).tocsr()
    columns = {
        "probability": probability[chosen],
        **sides,
        "shared": np.asarray(shared.sum(axis=1)).ravel(),
        "best_shared": shared.max(axis=1).toarray().ravel(),
    }
    return np.stack([columns[name] for name in CONTEXT_FEATURES], axis=1).astype(np.float32)
