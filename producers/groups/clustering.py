"""Groups from pairs, such that every two members of a group are a probable pair.

Connected components alone form chains: A is like B, B is like C, and A and C are in one group although they differ.
Each component is therefore divided by complete linkage: two parts are joined only if their least probable pair reaches
the threshold. A pair without a probability counts as 0.
"""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]

LARGEST_COMPONENT = 2_000
"""Largest component, in products, for complete linkage. A larger one is first divided by higher thresholds."""


def cluster_products(
    left: Int64,
    right: Int64,
    probability: Floats,
    products: int,
    *,
    threshold: float,
    seller: Int64 | None = None,
) -> Int64:
    """Return the number of each product's group, int64 [products], from 0; a product without a partner is alone.

    Args:
        left: [m], rows of products; each pair once.
        right: [m], likewise.
        probability: [m], that the pair is the same.
        products: number of products.
        threshold: every two members of a group have at least this probability, in (0, 1].
        seller: [products], equal for products of one seller, -1 if unknown; two products of one seller are then never
            in one group. None: sellers do not matter.
    """
    is_allowed = np.ones(len(left), bool)
    if seller is not None:
        is_allowed = (seller[left] != seller[right]) | (seller[left] < 0)
    is_edge = is_allowed & (probability >= threshold)
    left, right, probability = left[is_edge], right[is_edge], probability[is_edge]
    group = np.arange(products)
    for rows, edges in _split_components(left, right, probability, products):
        number = {row: position for position, row in enumerate(rows.tolist())}
        distance = np.ones((len(rows), len(rows)))
        np.fill_diagonal(distance, 0)
        a = np.array([number[row] for row in left[edges].tolist()])
        b = np.array([number[row] for row in right[edges].tolist()])
        distance[a, b] = distance[b, a] = 1 - probability[edges].astype(np.float64)
        condensed = distance[np.triu_indices(len(rows), 1)]
        # The margin keeps pairs at the threshold itself, which rounding would lose; 1 is no pair at all.
        limit = min(1 - threshold + 1e-6, 1 - 1e-9)
        part = fcluster(linkage(condensed, "complete"), limit, "distance")
        for label in np.unique(part):
            group[rows[part == label]] = rows[part == label].min()
    return np.unique(group, return_inverse=True)[1]


def list_components(left: Int64, right: Int64, products: int) -> Int64:
    """Return the number of the connected component of each product, int64 [products]."""
    links = sp.coo_matrix((np.ones(len(left)), (left, right)), shape=(products, products))
    return connected_components(links, directed=False)[1].astype(np.int64)


def _split_components(left: Int64, right: Int64, probability: Floats, products: int) -> list[tuple[Int64, Int64]]:
    """Return products and positions of the pairs of each component of at least 2 products.

    A component of more than LARGEST_COMPONENT products is divided: its pairs up to the median probability are dropped,
    and again until no part is too large. Pairs of one probability are all dropped at once.
    """
    component = list_components(left, right, products)
    by_component = np.argsort(component[left], kind="stable")
    found = []
    for edges in np.split(by_component, np.flatnonzero(np.diff(component[left][by_component])) + 1):
        rows = np.unique(np.concatenate([left[edges], right[edges]]))
        if len(rows) < 2:
            continue
        if len(rows) <= LARGEST_COMPONENT:
            found.append((rows, edges))
            continue
        stronger = edges[probability[edges] > np.median(probability[edges])]
        parts = _split_components(left[stronger], right[stronger], probability[stronger], products)
        found += [(part_rows, stronger[part_edges]) for part_rows, part_edges in parts]
    return found
