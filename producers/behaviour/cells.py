"""Cells of the vector space: a product is compared with the products of the cells nearest to it, not with all.

This is an inverted file (Jegou et al. 2011, "Product quantization for nearest neighbor search", section 4.1) without
compression. The cells of a product are kept, so that products which arrive later are compared with those near them
only. The comparison of n products then takes about n ** 1.5 steps, and n ** 2 without cells.
"""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from producers.behaviour.cell_index import CellIndex, Int64, Vectors

MIN_RECALL = 0.95
"""Share of the nearest products that a search finds on the sample, if at most MAX_PROBES cells suffice for it."""
MAX_PROBES = 64
SAMPLE = 500
"""Vectors on which the recall is measured."""
VECTORS_PER_CELL = 40
"""Vectors that a cell is trained on; faiss asks for 39 at least."""
ITERATIONS = 10


@dataclass(frozen=True)
class VectorCells:
    """c cells, each with a center. A vector is in the cell whose center has the largest dot product with it."""

    centers: Vectors
    """[c, d], of unit length."""
    probes: int
    """Number of cells in which the neighbours of a vector are searched."""
    recall: float
    """Share of the k nearest other vectors that such a search finds, on a sample of the vectors of the training."""

    def find_cells(self, vectors: Vectors) -> Int64:
        """Return for each vector [m, d] the numbers of the nearest cells, int64 [m, probes], nearest first.

        A vector of NaN has the numbers -1.
        """
        cells = np.full((len(vectors), self.probes), -1, np.int64)
        rows = np.flatnonzero(~np.isnan(vectors[:, 0]))
        if len(rows):
            cells[rows] = _index_centers(self.centers).search(np.ascontiguousarray(vectors[rows]), self.probes)[1]
        return cells

    def build_index(self, members: Vectors, member_cells: NDArray[np.integer]) -> CellIndex:
        """Return an index of `members` [n, d], whose cells [n] are known."""
        order = np.argsort(member_cells, kind="stable")
        starts = np.searchsorted(member_cells[order], np.arange(len(self.centers) + 1))
        return CellIndex(np.ascontiguousarray(members[order], np.float32), order, starts)


def train_cells(vectors: Vectors, k: int) -> VectorCells:
    """Divide the space by spherical k-means, and choose the number of probes that finds MIN_RECALL of the k nearest.

    Args:
        vectors: float32 [n, d], of unit length. There are 4 * sqrt(n) cells.
        k: number of nearest vectors that the recall counts.
    """
    count = max(1, round(4 * len(vectors) ** 0.5))
    means = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=ITERATIONS,
        seed=0,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=VECTORS_PER_CELL,
    )
    means.train(np.ascontiguousarray(vectors))
    centers = np.ascontiguousarray(means.centroids)
    sample = np.random.default_rng(0).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
    queries, k = vectors[sample], min(k + 1, len(vectors))
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(np.ascontiguousarray(vectors))
    _, truth = exact.search(np.ascontiguousarray(queries), k)
    is_other = truth != sample[:, None]  # that a vector finds itself says nothing
    all_probes = VectorCells(centers, min(MAX_PROBES, count), 0.0).find_cells(queries)
    one_cell = VectorCells(centers, 1, 0.0)
    index = one_cell.build_index(vectors, one_cell.find_cells(vectors)[:, 0])
    probes = min(4, count)
    while True:
        _, found = index.search(queries, all_probes[:, :probes], k)
        is_found = (truth[:, :, None] == found[:, None, :]).any(axis=2)
        recall = float(is_found[is_other].mean()) if is_other.any() else 1.0
        if recall >= MIN_RECALL or probes >= min(MAX_PROBES, count):
            return VectorCells(centers, probes, recall)
        probes = min(2 * probes, MAX_PROBES, count)


def _index_centers(centers: Vectors) -> Any:
    index = faiss.IndexFlatIP(centers.shape[1])
    index.add(centers)
    return index
