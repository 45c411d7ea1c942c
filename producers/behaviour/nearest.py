"""The nearest products that have impressions, as products arrive, change and gain impressions.

A list is kept half as long again as asked for, so that it stays long enough when the vectors of some of its products
change: those leave it, and it is merged with the products whose vector changed or that gained their first impression.
It is searched again when it has become too short, or when the product's own vector has changed. Each update uses only
what is known at its time, in arrays whose sizes do not depend on later products, so that a longer log gives the same
lists bit for bit.

Up to EXACT_MEMBERS products with impressions are compared with all. More are divided into cells (cells.py), anew
whenever their number has grown by GROWTH, and a product is compared with those of the cells nearest to it.
"""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from producers.behaviour.cell_index import Int64, Vectors
from producers.behaviour.cells import VectorCells, train_cells

Bools = NDArray[np.bool_]

ROWS_PER_BLOCK = 1 << 16
"""Products whose lists are changed at a time: many, because those near each other share the work of a search."""
EXACT_MEMBERS = 50_000
"""Number of products with impressions above which they are divided into cells."""
GROWTH = 4
"""The factor by which their number grows until they are divided again."""


@dataclass
class NearestProducts:
    """For each of n products, its k nearest other products: those with the highest cosine of the vectors.

    Only products with impressions can be neighbours, but products without impressions have neighbours too. A product
    number is an index into the n products.
    """

    k: int
    """The number of nearest products of each."""
    exact_members: int
    """Number of products with impressions up to which each of them is compared."""
    listed: Int64
    """[n, w], product numbers, nearest first, then -1. The m that a list has are the m nearest; m is k at least, unless
    there are fewer."""
    listed_similarity: Vectors
    """[n, w], their cosines, then NaN."""
    has_history: Bools
    """[n], whether the product has a vector and impressions; only these products can be neighbours."""
    cells: VectorCells | None = None
    """None: each product with impressions is compared."""
    product_cells: NDArray[np.int32] | None = None
    """[n, probes], the cells nearest to each product's vector, nearest first; -1 without one. None without cells."""
    cells_made_for: int = 0
    """Number of products with impressions when the cells were made."""
    index: Any = None
    """Of the products with impressions: of faiss, or a CellIndex with cells; None until a search after a change."""

    @staticmethod
    def create_empty(k: int, exact_members: int = EXACT_MEMBERS) -> "NearestProducts":
        """Return an instance with no products (n is 0), to be filled by `update`.

        Args:
            k: the number of nearest products of each, at least 1.
            exact_members: number of products with impressions above which there are cells.
        """
        width = k + -(-k // 2)
        lists = np.empty((0, width), np.int64), np.empty((0, width), np.float32)
        return NearestProducts(k, exact_members, *lists, np.empty(0, bool))

    @property
    def neighbours(self) -> Int64:
        """[n, k], product numbers, nearest first; -1 where there are fewer than k."""
        return self.listed[:, : self.k]

    @property
    def similarity(self) -> Vectors:
        """[n, k], cosines; NaN where there are fewer than k."""
        return self.listed_similarity[:, : self.k]

    def update(self, vectors: Vectors, is_changed: Bools, has_history: Bools) -> None:
        """Bring all lists, in place, to what they are for the given state. Products can be added, but not removed.

        A product without a vector has no neighbours and is in no list.

        Args:
            vectors: float32 [n, d] of unit length, NaN where a product has none. The products of the last update come
                first, in their order, then new ones.
            is_changed: bool [n], whether the vector differs from the last update; true for every new product.
            has_history: bool [n], whether the product has impressions; once true it must stay true.
        """
        new, width = len(vectors) - len(self.has_history), self.listed.shape[1]
        self.listed = np.concatenate([self.listed, np.full((new, width), -1)])
        self.listed_similarity = np.concatenate([self.listed_similarity, np.full((new, width), np.nan, np.float32)])
        had_history = np.concatenate([self.has_history, np.zeros(new, bool)])
        has_new_cells = self.set_members(vectors, is_changed, has_history)
        is_stale = self._remove(is_changed) | is_changed | has_new_cells
        stale = np.flatnonzero(is_stale)
        for start in range(0, len(stale), ROWS_PER_BLOCK):
            block = stale[start : start + ROWS_PER_BLOCK]
            cells = None if self.product_cells is None else self.product_cells[block]
            found = self._search(vectors, vectors[block], block, cells, width)
            self.listed[block], self.listed_similarity[block] = found
        added = np.flatnonzero(self.has_history & (~had_history | is_changed))
        self._merge(vectors, np.flatnonzero(~is_stale & ~np.isnan(vectors[:, 0])), added)

    def set_members(self, vectors: Vectors, is_changed: Bools, has_history: Bools) -> bool:
        """Follow the state as `update` does, but leave the lists; enough for `search`.

        Returns:
            Whether the products were divided into new cells.
        """
        new = len(vectors) - len(self.has_history)
        self.index = None
        self.has_history = has_history & ~np.isnan(vectors[:, 0])
        members = int(self.has_history.sum())
        if members > max(self.exact_members, GROWTH * self.cells_made_for):
            self.cells, self.cells_made_for = train_cells(vectors[self.has_history], self.k), members
            self.product_cells = self.cells.find_cells(vectors).astype(np.int32)
            return True
        if self.cells is not None and self.product_cells is not None:
            none = np.full((new, self.cells.probes), -1, np.int32)
            self.product_cells = np.concatenate([self.product_cells, none])
            self.product_cells[is_changed] = self.cells.find_cells(vectors[is_changed])
        return False

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
        cells = None if self.cells is None else self.cells.find_cells(queries)
        return self._search(vectors, queries, own, cells, self.k)

    def _remove(self, is_changed: Bools) -> Bools:
        """Take the changed products [n] out of the lists; return the lists [n] that are too short now."""
        is_gone = np.append(is_changed, False)[self.listed]  # -1 is the last one
        rows = np.flatnonzero(is_gone.any(axis=1))
        is_short = np.zeros(len(self.listed), bool)
        for start in range(0, len(rows), ROWS_PER_BLOCK):
            block = rows[start : start + ROWS_PER_BLOCK]
            numbers = np.where(is_gone[block], -1, self.listed[block])
            order = np.argsort(numbers < 0, axis=1, kind="stable")
            self.listed[block] = np.take_along_axis(numbers, order, 1)
            cosines = np.where(is_gone[block], np.float32(np.nan), self.listed_similarity[block])
            self.listed_similarity[block] = np.take_along_axis(cosines, order, 1)
            is_short[block] = self.listed[block, self.k - 1] < 0
        return is_short

    def _search(
        self, vectors: Vectors, queries: Vectors, own: Int64, cells: NDArray[np.integer] | None, count: int
    ) -> tuple[Int64, Vectors]:
        """Find `count` products as `search` does. `cells` [m, probes] are those of the queries, or None."""
        neighbours = np.full((len(queries), count), -1)
        similarity = np.full((len(queries), count), np.nan, np.float32)
        members = np.flatnonzero(self.has_history)
        rows = np.flatnonzero(~np.isnan(queries[:, 0]))
        if not len(members) or not len(rows):
            return neighbours, similarity
        if self.index is None:
            self.index = self._build_index(vectors, members)
        # One more, because the product itself may be among them.
        found = min(count + 1, len(members))
        cosines, positions = self._find(self.index, queries[rows], None if cells is None else cells[rows], found)
        numbers = np.where(positions >= 0, members[positions], -1)
        neighbours[rows], similarity[rows] = _select_nearest(numbers, cosines, own[rows], count)
        return neighbours, similarity

    def _find(
        self, index: Any, queries: Vectors, cells: NDArray[np.integer] | None, k: int, above: Vectors | None = None
    ) -> tuple[Vectors, Int64]:
        """Return cosines and positions [m, k] in an index of `_build_index`; `cells` are those of the queries.

        Cosines that are not larger than `above` [m], if it is given, may be left out.
        """
        if cells is None:
            return index.search(np.ascontiguousarray(queries), k)
        return index.search(queries, cells, k, above)

    def _build_index(self, vectors: Vectors, members: Int64) -> Any:
        if self.cells is not None and self.product_cells is not None:
            return self.cells.build_index(vectors[members], self.product_cells[members, 0])
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors[members]))
        return index

    def _merge(self, vectors: Vectors, rows: Int64, added: Int64) -> None:
        """Merge the lists of some products with the products that can be neighbours since this update."""
        if not len(added):
            return
        width = self.listed.shape[1]
        index, found = self._build_index(vectors, added), min(width + 1, len(added))
        for start in range(0, len(rows), ROWS_PER_BLOCK):
            block = rows[start : start + ROWS_PER_BLOCK]
            # A list of k or more may lack products that are farther than its last one, so these cannot be added.
            length = (self.listed[block] >= 0).sum(axis=1)
            last = np.where(length < self.k, np.float32(-np.inf), self.listed_similarity[block, length - 1])
            cells = None if self.product_cells is None else self.product_cells[block]
            cosines, positions = self._find(index, vectors[block], cells, found, last)
            numbers = np.where(positions >= 0, added[positions], -1)
            numbers, cosines = _select_nearest(numbers, cosines, block, width)
            is_nearer = cosines > last[:, None]
            has_nearer = is_nearer.any(axis=1)  # most lists stay as they are
            block, is_nearer = block[has_nearer], is_nearer[has_nearer]
            both = np.concatenate([self.listed[block], np.where(is_nearer, numbers[has_nearer], -1)], axis=1)
            similarity = np.concatenate([self.listed_similarity[block], cosines[has_nearer]], axis=1)
            self.listed[block], self.listed_similarity[block] = _select_nearest(both, similarity, block, width)


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
