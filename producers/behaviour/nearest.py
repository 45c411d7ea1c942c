"""The nearest products that have impressions, updated as products arrive, change and gain impressions.

The list of a product is searched again if its vector or that of one of its neighbours has changed. Otherwise it is
merged with the products that gained their first impression since. Each update uses only what is known at its time, in
arrays whose sizes do not depend on later products, so that a longer log gives the same lists bit for bit.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

ROWS_PER_BLOCK = 4096
"""Products merged at a time, so that their similarities to the new products fit in memory."""


@dataclass
class NearestProducts:
    """For each of n products, its k nearest other products: those with the highest cosine of the vectors.

    Only products with impressions can be neighbours, but products without impressions have neighbours too. A product
    number is an index into the n products.
    """

    k: int
    """The length of each list."""
    neighbours: Int64
    """[n, k], product numbers, nearest first; -1 where there are fewer than k."""
    similarity: Vectors
    """[n, k], cosines; NaN where there are fewer than k."""
    has_history: Bools
    """[n], whether the product has a vector and impressions; only these products can be neighbours."""

    @staticmethod
    def create_empty(k: int) -> "NearestProducts":
        """Return an instance with no products (n is 0), to be filled by `update`.

        Args:
            k: the length of each list, at least 1.
        """
        return NearestProducts(k, np.empty((0, k), np.int64), np.empty((0, k), np.float32), np.empty(0, bool))

    def update(self, vectors: Vectors, is_changed: Bools, has_history: Bools) -> None:
        """Bring all lists, in place, to what they are for the given state. Products can be added, but not removed.

        A product without a vector has no neighbours and is in no list.

        Args:
            vectors: float32 [n, d] of unit length, NaN where a product has none. The products of the last update come
                first, in their order, then new ones.
            is_changed: bool [n], whether the vector differs from the last update; true for every new product.
            has_history: bool [n], whether the product has impressions; once true it must stay true.
        """
        new = len(vectors) - len(self.has_history)
        self.neighbours = np.concatenate([self.neighbours, np.full((new, self.k), -1)])
        self.similarity = np.concatenate([self.similarity, np.full((new, self.k), np.nan, np.float32)])
        had_history = np.concatenate([self.has_history, np.zeros(new, bool)])
        self.has_history = has_history & ~np.isnan(vectors[:, 0])
        neighbour_changed = np.append(is_changed, False)[self.neighbours] & (self.neighbours >= 0)
        is_stale = is_changed | neighbour_changed.any(axis=1)
        stale = np.flatnonzero(is_stale)
        self.neighbours[stale], self.similarity[stale] = self.search(vectors, vectors[stale], stale)
        added = np.flatnonzero(self.has_history & (~had_history | is_changed))
        self._merge(vectors, np.flatnonzero(~is_stale & ~np.isnan(vectors[:, 0])), added)

    def search(self, vectors: Vectors, queries: Vectors, own: Int64) -> tuple[Int64, Vectors]:
        """Find the nearest products of m queries among the products that had a vector and impressions at `update`.

        The lists are neither used nor changed.

        Args:
            vectors: float32 [n, d], the vectors that `update` was last called with.
            queries: float32 [m, d], of unit length or NaN.
            own: int64 [m], the product number of each query, which is excluded from its list; -1 for a new product.

        Returns:
            Product numbers, int64 [m, k], and cosines, float32 [m, k], nearest first. Where there are fewer than k, the
            rest is -1 and NaN. A query of NaN has none.
        """
        neighbours = np.full((len(queries), self.k), -1)
        similarity = np.full((len(queries), self.k), np.nan, np.float32)
        members = np.flatnonzero(self.has_history)
        rows = np.flatnonzero(~np.isnan(queries[:, 0]))
        if not len(members) or not len(rows):
            return neighbours, similarity
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors[members]))
        # One more than k, because the product itself may be among them.
        cosines, positions = index.search(np.ascontiguousarray(queries[rows]), min(self.k + 1, len(members)))
        numbers = np.where(positions >= 0, members[positions], -1)
        neighbours[rows], similarity[rows] = _select_nearest(numbers, cosines, own[rows], self.k)
        return neighbours, similarity

    def _merge(self, vectors: Vectors, rows: Int64, added: Int64) -> None:
        """Merge the lists of some products with the products that can be neighbours since this update."""
        if not len(added):
            return
        for start in range(0, len(rows), ROWS_PER_BLOCK):
            block = rows[start : start + ROWS_PER_BLOCK]
            cosines = vectors[block] @ vectors[added].T
            numbers = np.broadcast_to(added, cosines.shape)
            numbers, cosines = _select_nearest(numbers, cosines, block, self.k)
            both = np.concatenate([self.neighbours[block], numbers], axis=1)
            similarity = np.concatenate([self.similarity[block], cosines], axis=1)
            self.neighbours[block], self.similarity[block] = _select_nearest(both, similarity, block, self.k)


def _select_nearest(numbers: Int64, cosines: Vectors, own: Int64, k: int) -> tuple[Int64, Vectors]:
    """Return the k nearest candidates of each row [m, k], nearest first, without `own`; -1 and NaN where fewer remain.

    Args:
        numbers: [m, w], candidate product numbers, -1 for none.
        cosines: [m, w], NaN for none.
        own: [m], the product number to exclude.
        k: candidates to keep.
    """
    is_excluded = (numbers < 0) | (numbers == own[:, None]) | np.isnan(cosines)
    sort_key = np.where(is_excluded, np.float32(np.inf), -cosines)
    if sort_key.shape[1] > k:
        kept = np.argpartition(sort_key, k - 1, axis=1)[:, :k]
    else:
        kept = np.broadcast_to(np.arange(sort_key.shape[1]), sort_key.shape)
    kept_order = np.argsort(np.take_along_axis(sort_key, kept, 1), axis=1, kind="stable")
    order = np.take_along_axis(kept, kept_order, 1)
    is_missing = np.take_along_axis(is_excluded, order, 1)
    neighbours = np.full((len(numbers), k), -1)
    similarity = np.full((len(numbers), k), np.nan, np.float32)
    width = order.shape[1]
    neighbours[:, :width] = np.where(is_missing, -1, np.take_along_axis(numbers, order, 1))
    similarity[:, :width] = np.where(is_missing, np.nan, np.take_along_axis(cosines, order, 1))
    return neighbours, similarity
