"""The nearest vectors of one segment: exact, or over a graph (HNSW, Malkov and Yashunin 2016) of faiss."""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import CorruptDataError

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NEIGHBOURS = 32
"""Links of a vector in each layer of the graph; twice as many in the lowest one. Of a million vectors of 128 values, 32
take 0.6 times as long as 16 for a recall of 0.95, and 256 bytes more for each vector."""
CONSTRUCTION_SEARCH = 80
"""Candidates that are kept while a vector is linked."""
DEFAULT_SEARCH = 64
"""Candidates that are kept while the graph is searched, where no other number was measured."""
EXACT_ROWS = 20_000
"""Up to this number of allowed vectors, each is compared: exact, and faster than a graph under a narrow filter."""
BLOCK_ROWS = 65_536
"""Vectors compared at a time."""


@dataclass(frozen=True)
class AllowedVectors:
    """Some of the m vectors of a segment: those that a search may return."""

    positions: Ints
    """Ascending."""
    total: int
    """m"""

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def selector(self) -> Any:
        """The positions as faiss takes them; made at the first use, which takes a millisecond for a million vectors."""
        library: Any = faiss  # its stubs lack these classes
        return library.IDSelectorBitmap(self._bitmap)

    @cached_property
    def _bitmap(self) -> NDArray[np.uint8]:
        """One bit for each vector; faiss reads it where it is."""
        bits = np.zeros(self.total, bool)
        bits[self.positions] = True
        return np.packbits(bits, bitorder="little")


@dataclass(frozen=True)
class VectorColumn:
    """The vectors of a segment, in files that are opened by mmap."""

    matrix: Vectors
    """[m, d], unit vectors of the rows that have one."""
    rows: Ints | None
    """[m], the rows of the segment that the vectors belong to, ascending; None: row i has vector i."""
    graph: Any = None
    """faiss.IndexHNSWFlat over `matrix`; None: every search is exact."""

    def take(self, rows: Ints, count: int) -> Vectors:
        """Return the vectors of some rows, float32 [rows, d]; NaN where a row has none.

        Args:
            rows: rows of the segment.
            count: number of rows of the segment.
        """
        if self.rows is None:
            return self.matrix[rows]
        position = find_positions(self.rows, count)[rows]
        taken = np.full((len(rows), self.matrix.shape[1]), np.nan, np.float32)
        taken[position >= 0] = self.matrix[position[position >= 0]]
        return taken

    def search(
        self,
        query: Vectors,
        top_k: int,
        allowed: AllowedVectors | None,
        *,
        candidates: int = DEFAULT_SEARCH,
        exact: bool = False,
    ) -> tuple[Ints, Vectors]:
        """Return the positions in `matrix` of the vectors with the largest dot products, and these, descending.

        Args:
            query: float32 [d].
            top_k: number of results; fewer if fewer are allowed.
            allowed: vectors that may be returned; None: all.
            candidates: kept while the graph is searched; more give a higher recall.
            exact: do not use the graph.
        """
        positions = None if allowed is None else allowed.positions
        count = len(self.matrix) if allowed is None else len(allowed)
        if self.graph is None or exact or count <= max(EXACT_ROWS, top_k):
            return search_exact(self.matrix, query, top_k, positions)
        scores, found = self.graph.search(query[None], top_k, params=_make_parameters(max(candidates, top_k), allowed))
        if found[0, -1] < 0:  # the graph search found fewer than top_k allowed vectors
            return search_exact(self.matrix, query, top_k, positions)
        return found[0], scores[0]

    def search_batch(
        self, queries: Vectors, top_k: int, allowed: AllowedVectors | None, *, candidates: int = DEFAULT_SEARCH
    ) -> tuple[Ints, Vectors]:
        """Return what `search` returns for each query, [queries, top_k]; position -1 where there are fewer vectors."""
        if self.graph is not None:
            parameters = _make_parameters(max(candidates, top_k), allowed)
            scores, found = self.graph.search(np.ascontiguousarray(queries), top_k, params=parameters)
            return found, scores
        matrix = self.matrix if allowed is None else self.matrix[allowed.positions]
        if not len(matrix):
            return np.full((len(queries), top_k), -1, np.int64), np.full((len(queries), top_k), -np.inf, np.float32)
        scores, found = faiss.knn(queries, matrix, top_k, metric=faiss.METRIC_INNER_PRODUCT)
        return (found if allowed is None else np.where(found < 0, -1, allowed.positions[found])), scores


def _make_parameters(candidates: int, allowed: AllowedVectors | None) -> Any:
    """Return the parameters of a graph search that keeps a number of candidates."""
    library: Any = faiss
    if allowed is None:
        return _make_unfiltered_parameters(candidates)
    return library.SearchParametersHNSW(efSearch=candidates, sel=allowed.selector)


@cache
def _make_unfiltered_parameters(candidates: int) -> Any:
    """Return the parameters of a search of all vectors; kept, because to make them takes 5 microseconds."""
    library: Any = faiss
    return library.SearchParametersHNSW(efSearch=candidates)


def search_exact(matrix: Vectors, query: Vectors, top_k: int, allowed: Ints | None) -> tuple[Ints, Vectors]:
    """Return what `VectorColumn.search` returns, by comparing every allowed vector; ties are in the order of `matrix`.

    If vectors tie at the last place, any of them may be returned.
    """
    count = len(matrix) if allowed is None else len(allowed)
    scores = np.empty(count, np.float32)
    for start in range(0, count, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        scores[block] = (matrix[block] if allowed is None else matrix[allowed[block]]) @ query
    order = np.argpartition(-scores, top_k)[:top_k] if top_k < count else np.arange(count)
    order = order[np.lexsort((order, -scores[order]))]
    return (order if allowed is None else allowed[order]), scores[order]


def find_positions(rows: Ints, count: int) -> Ints:
    """Return for each of `count` rows its position in `rows`; -1 for a row that is not there."""
    position = np.full(count, -1, np.int64)
    position[rows] = np.arange(len(rows))
    return position


def build_graph(matrix: Vectors) -> Any:
    """Return a graph over unit vectors [m, d], with a copy of them."""
    graph = faiss.IndexHNSWFlat(matrix.shape[1], NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = CONSTRUCTION_SEARCH
    graph.add(np.ascontiguousarray(matrix, np.float32))
    return graph


def write_graph(graph: Any, file: Path) -> None:
    """Write a graph with its vectors."""
    faiss.write_index(graph, str(file))


def open_graph(file: Path) -> tuple[Any, Vectors]:
    """Open a graph and its vectors [m, d] by mmap.

    Raises:
        CorruptDataError: the file is damaged.
    """
    try:
        graph: Any = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        storage: Any = faiss.downcast_index(graph.storage)
        return graph, faiss.rev_swig_ptr(storage.get_xb(), graph.ntotal * graph.d).reshape(graph.ntotal, graph.d)
    except RuntimeError as error:
        raise CorruptDataError(f"{file}: the graph is damaged; run: produce index --rebuild") from error
