"""The nearest products with a history, kept up to date while products come, change and gather one.

A product's list is searched anew when its vector or that of one of its neighbours has changed; otherwise it is merged
with the products that have a history since. Each moment is worked out from what was there by then alone, in arrays that
nothing later widens, so that a longer log gives the same lists, bit for bit.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

ROWS_A_BLOCK = 4096
"""Products merged at a time: similarities to those that are new fit the memory."""


@dataclass
class Nearest:
    """The k nearest of each of n products so far, themselves left out."""

    k: int
    neighbours: Int64
    """[n, k], product numbers, nearest first, -1 where there are fewer."""
    similarity: Vectors
    """[n, k], cosines, NaN where there are fewer."""
    has_history: Bools
    """[n], which products are searched among."""

    @staticmethod
    def nothing(k: int) -> "Nearest":
        """Of no products."""
        return Nearest(k, np.empty((0, k), np.int64), np.empty((0, k), np.float32), np.empty(0, bool))

    def update(self, vectors: Vectors, changed: Bools, has_history: Bools) -> None:
        """Bring the lists up to a moment.

        Args:
            vectors: float32 [n, d], unit rows, NaN where a product has none; the products so far, then new ones.
            changed: bool [n], whose vector is not what it was at the last update; of the new ones all.
            has_history: bool [n]; who has one keeps it.
        """
        new = len(vectors) - len(self.has_history)
        self.neighbours = np.concatenate([self.neighbours, np.full((new, self.k), -1)])
        self.similarity = np.concatenate([self.similarity, np.full((new, self.k), np.nan, np.float32)])
        before = np.concatenate([self.has_history, np.zeros(new, bool)])
        self.has_history = has_history & ~np.isnan(vectors[:, 0])
        stale = changed | (np.append(changed, False)[self.neighbours] & (self.neighbours >= 0)).any(axis=1)
        arrived = np.flatnonzero(self.has_history & (~before | changed))
        self._search(vectors, np.flatnonzero(stale))
        self._merge(vectors, np.flatnonzero(~stale & ~np.isnan(vectors[:, 0])), arrived)

    def of(self, vectors: Vectors, queries: Vectors, own: Int64) -> tuple[Int64, Vectors]:
        """The nearest of vectors that are no product's own yet: [m, k] numbers and cosines.

        Args:
            vectors: as at the last update.
            queries: float32 [m, d], unit rows or NaN.
            own: int64 [m], the product each is of, which is left out; -1 for a new one.
        """
        found = np.full((len(queries), self.k), -1)
        similarity = np.full((len(queries), self.k), np.nan, np.float32)
        members = np.flatnonzero(self.has_history)
        rows = np.flatnonzero(~np.isnan(queries[:, 0]))
        if not len(members) or not len(rows):
            return found, similarity
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors[members]))
        cosines, place = index.search(np.ascontiguousarray(queries[rows]), min(self.k + 1, len(members)))
        numbers = np.where(place >= 0, members[place], -1)
        found[rows], similarity[rows] = _best(numbers, cosines, own[rows], self.k)
        return found, similarity

    def _search(self, vectors: Vectors, rows: Int64) -> None:
        self.neighbours[rows], self.similarity[rows] = self.of(vectors, vectors[rows], rows)

    def _merge(self, vectors: Vectors, rows: Int64, arrived: Int64) -> None:
        if not len(arrived):
            return
        for start in range(0, len(rows), ROWS_A_BLOCK):
            block = rows[start : start + ROWS_A_BLOCK]
            # A wide product is cut down to its best before it is laid beside what was there.
            cosines = vectors[block] @ vectors[arrived].T
            numbers = np.broadcast_to(arrived, cosines.shape)
            numbers, cosines = _best(numbers, cosines, block, self.k)
            both = np.concatenate([self.neighbours[block], numbers], axis=1)
            similarity = np.concatenate([self.similarity[block], cosines], axis=1)
            self.neighbours[block], self.similarity[block] = _best(both, similarity, block, self.k)


def _best(numbers: Int64, cosines: Vectors, own: Int64, k: int) -> tuple[Int64, Vectors]:
    """The k best of each row [m, w], itself left out, best first; -1 and NaN where there are fewer."""
    out = (numbers < 0) | (numbers == own[:, None]) | np.isnan(cosines)
    rank = np.where(out, np.float32(np.inf), -cosines)
    if rank.shape[1] > k:
        kept = np.argpartition(rank, k - 1, axis=1)[:, :k]
    else:
        kept = np.broadcast_to(np.arange(rank.shape[1]), rank.shape)
    order = np.take_along_axis(kept, np.argsort(np.take_along_axis(rank, kept, 1), axis=1, kind="stable"), 1)
    gone = np.take_along_axis(out, order, 1)
    found = np.full((len(numbers), k), -1)
    similarity = np.full((len(numbers), k), np.nan, np.float32)
    width = order.shape[1]
    found[:, :width] = np.where(gone, -1, np.take_along_axis(numbers, order, 1))
    similarity[:, :width] = np.where(gone, np.nan, np.take_along_axis(cosines, order, 1))
    return found, similarity
