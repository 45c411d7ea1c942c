"""The pairs of changed products are scored, and the pairs and groups that this affects are decided again.

What is not affected takes no part, so that the work grows with the change and not with the catalogue. Products have
positions from 0 to n - 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.pairs.verifier import PairVerifier
from producers.groups.candidates import list_missing_pairs
from producers.groups.clustering import cluster_products, list_components
from producers.groups.context import WORTH_COUNTING
from producers.groups.group_rows import FormerGroups
from producers.groups.matching import score_context
from producers.groups.pairs import ScoredPairs

Bools = NDArray[np.bool_]
Int64 = NDArray[np.int64]

LARGEST_COMPLETED = 50
"""Up to this number of products in a connected component all its pairs are scored, not only the candidates."""


@dataclass(frozen=True)
class ScoredChange:
    """What changed products change in the pairs of n products."""

    pairs: ScoredPairs
    """The pairs of all products whose group may change, and of those that they are linked to, decided."""
    is_affected: Bools
    """[n], products with a pair that was decided again, and compared ones."""
    written: ScoredPairs
    """The pairs of affected products, and with 0 those stored ones that are no longer worth storing."""
    count: int
    """Number of pairs that were scored."""


def score_changed(
    near: tuple[Int64, Int64],
    stored: ScoredPairs,
    verifier: PairVerifier,
    is_compared: Bools,
    former: FormerGroups,
    score: Callable[[Int64, Int64], ScoredPairs],
) -> ScoredChange:
    """Score the candidate pairs of compared products, and decide all pairs that this affects.

    Args:
        near: candidate pairs of compared products, left < right, sorted.
        stored: the pairs of the last run.
        verifier: decides pairs by their context.
        is_compared: [n].
        former: of the same products.
        score: returns the given pairs with their probability alone.
    """
    n = len(is_compared)

    def decide(scored: ScoredPairs, is_affected: Bools) -> ScoredPairs:
        kept = scored.select(scored.alone >= WORTH_COUNTING)
        chosen = np.flatnonzero(kept.touches(is_affected))
        probability = kept.probability.copy()
        probability[chosen] = score_context(kept.left, kept.right, kept.alone, n, verifier, chosen)
        return ScoredPairs(kept.left, kept.right, kept.alone, probability)

    again = stored.select(stored.touches(is_compared))
    key = np.union1d(near[0] * n + near[1], again.left * n + again.right)
    new = score(key // max(n, 1), key % max(n, 1))
    is_affected = is_compared.copy()
    for touched in (again, new.select(new.alone >= WORTH_COUNTING)):
        is_affected[touched.left] = is_affected[touched.right] = True
    local = _select_region(stored, new, is_affected, former, verifier.group_threshold)
    decided = decide(local.replace_pairs(new, n), is_affected)
    strong = decided.probability >= verifier.group_threshold
    component = list_components(decided.left[strong], decided.right[strong], n)
    members = _list_members(component, is_affected)
    left, right = list_missing_pairs(decided.left, decided.right, members, n)
    is_unscored = ~np.isin(left * n + right, key)
    if is_unscored.any():
        completed = score(left[is_unscored], right[is_unscored])
        is_affected[completed.left] = is_affected[completed.right] = True
        decided = decide(decided.replace_pairs(completed, n), is_affected)
    dropped = local.select(~np.isin(local.left * n + local.right, decided.left * n + decided.right))
    zeros = np.zeros(len(dropped.left), np.float32)
    written = decided.select(decided.touches(is_affected))
    written = written.replace_pairs(ScoredPairs(dropped.left, dropped.right, zeros, zeros), n)
    return ScoredChange(decided, is_affected, written, len(key) + int(is_unscored.sum()))


def _select_region(
    stored: ScoredPairs, new: ScoredPairs, is_affected: Bools, former: FormerGroups, threshold: float
) -> ScoredPairs:
    """Return the stored pairs that decide the groups of affected products; all others stay as they are.

    They are the pairs of the affected products, of their partners, of all products that are linked to these by
    probable pairs or former groups, and of the partners of those, which are the context.
    """
    new = new.select(new.alone >= WORTH_COUNTING)

    def add_partners(is_in: Bools) -> Bools:
        grown = is_in.copy()
        for one in (stored, new):
            touched = one.select(one.touches(is_in))
            grown[touched.left] = grown[touched.right] = True
        return grown

    strong = stored.select(stored.probability >= threshold)
    first, second = former.list_links()
    links = list_components(
        np.concatenate([strong.left, first]), np.concatenate([strong.right, second]), len(is_affected)
    )
    is_near = add_partners(is_affected)
    is_linked = np.bincount(links[is_near], minlength=int(links.max(initial=0)) + 1)[links] > 0
    return stored.select(stored.touches(add_partners(is_linked)))


def _list_members(component: Int64, is_affected: Bools) -> list[Int64]:
    """Return the products of each component of 3 to LARGEST_COMPLETED products that has an affected one."""
    order = np.argsort(component, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(component[order])) + 1) if len(order) else []
    return [rows for rows in parts if 3 <= len(rows) <= LARGEST_COMPLETED and is_affected[rows].any()]


def cluster_affected(
    scored: ScoredChange, threshold: float, former: FormerGroups, seller: Int64 | None
) -> tuple[Bools, Int64]:
    """Return which products may change their group, and the cluster of each product; of the others it means nothing."""
    n, decided = len(scored.is_affected), scored.pairs
    strong = decided.probability >= threshold
    left, right = decided.left[strong], decided.right[strong]
    first, second = former.list_links()
    reach = list_components(np.concatenate([left, first]), np.concatenate([right, second]), n)
    is_chosen = np.isin(reach, reach[scored.is_affected])
    edges = is_chosen[left]
    cluster = cluster_products(
        left[edges], right[edges], decided.probability[strong][edges], n, threshold=threshold, seller=seller
    )
    return is_chosen, cluster
