"""The search of the nearest vectors in the cells of each query.

All queries that search a cell are compared with its members in one matrix product, which takes a tenth of the time of
one comparison after the other. Of the dot products only those count that are above the k-th largest which the query has
from nearer cells.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Int64 = NDArray[np.int64]

QUERIES_PER_BLOCK = 16_384
PARTS = (1, 4, 16)
"""The nearest cells of a query are searched in parts, which end at these numbers of cells and at the last one."""


@dataclass(frozen=True)
class CellIndex:
    """The n vectors of c cells, one cell after the other."""

    vectors: Vectors
    """[n, d]."""
    positions: Int64
    """[n], the position that each vector had before."""
    starts: Int64
    """[c + 1], where each cell starts, and n."""

    def search(
        self, queries: Vectors, cells: NDArray[np.integer], k: int, above: Vectors | None = None
    ) -> tuple[Vectors, Int64]:
        """Find the vectors with the largest dot products among those in the cells of each query.

        Args:
            queries: float32 [m, d].
            cells: [m, probes], the cells of each query, nearest first, from `VectorCells.find_cells`.
            k: number of results.
            above: [m], only larger dot products count; None for all.

        Returns:
            Dot products, float32 [m, k], and positions, int64 [m, k], nearest first; where fewer were found, the
            position is -1 and the product has no meaning.
        """
        products, positions = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)
        above = np.full(len(queries), -np.inf, np.float32) if above is None else above
        order = np.argsort(cells[:, 0], kind="stable")  # queries near each other search the same cells
        for start in range(0, len(order), QUERIES_PER_BLOCK):
            block = order[start : start + QUERIES_PER_BLOCK]
            products[block], found = self._search_block(queries[block], cells[block], k, above[block])
            positions[block] = np.where(found < 0, -1, self.positions[found])
        return products, positions

    def _search_block(
        self, queries: Vectors, cells: NDArray[np.integer], k: int, above: Vectors
    ) -> tuple[Vectors, Int64]:
        """Do what `search` does for some queries, with rows of `vectors` for positions."""
        best = _Found.create_empty()
        products, found = best.select(len(queries), k)
        bounds = [0, *(end for end in PARTS if end < cells.shape[1]), cells.shape[1]]
        for first, last in pairwise(bounds):
            new = self._compare(queries, cells[:, first:last], np.maximum(products[:, -1], above))
            products, found = best.join(new).select(len(queries), k)
            query, rank = np.nonzero(found >= 0)
            best = _Found(query, found[query, rank], products[query, rank])
        return products, found

    def _compare(self, queries: Vectors, cells: NDArray[np.integer], above: Vectors) -> "_Found":
        """Return the vectors in the cells of each query whose dot product with it is larger than `above` [m]."""
        order = np.argsort(cells, axis=None, kind="stable")
        used, first = np.unique(cells.ravel()[order], return_index=True)
        parts = [_Found.create_empty()]
        for cell, searching in zip(used.tolist(), np.split(order // cells.shape[1], first[1:]), strict=True):
            start, end = self.starts[cell : cell + 2]
            products = (queries[searching] @ self.vectors[start:end].T).ravel()
            hits = np.flatnonzero(products > np.repeat(above[searching], end - start))
            if len(hits):
                query, member = np.divmod(hits, end - start)
                parts.append(_Found(searching[query], start + member, products[hits]))
        return parts[0].join(*parts[1:])


@dataclass(frozen=True)
class _Found:
    """h pairs of a query and a vector, with their dot product."""

    query: Int64
    """[h]."""
    vector: Int64
    """[h]."""
    product: Vectors
    """[h]."""

    @staticmethod
    def create_empty() -> "_Found":
        none = np.empty(0, np.int64)
        return _Found(none, none, np.empty(0, np.float32))

    def join(self, *others: "_Found") -> "_Found":
        """Return these pairs and then the others."""
        parts = (self, *others)
        names = ("query", "vector", "product")
        return _Found(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def select(self, queries: int, k: int) -> tuple[Vectors, Int64]:
        """Return the k pairs of each query with the largest dot products, as `CellIndex.search` does."""
        order = np.argsort(self.query * 4.0 - self.product)  # dot products are from -1 to 1
        query = self.query[order]
        rank = np.arange(len(query)) - np.searchsorted(query, np.arange(queries))[query]
        is_kept = rank < k
        kept, query, rank = order[is_kept], query[is_kept], rank[is_kept]
        products, vectors = np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1)
        products[query, rank], vectors[query, rank] = self.product[kept], self.vector[kept]
        return products, vectors
