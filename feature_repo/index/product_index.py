"""An open index: which products pass a filter, the nearest of them, and their rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.index import manifest as manifests
from feature_repo.index import nearest, recall
from feature_repo.index.filters import FilterColumns, ProductFilter
from feature_repo.index.manifest import Manifest
from feature_repo.index.nearest import AllowedVectors, Ints, Vectors
from feature_repo.index.segment import Segment, open_segment
from feature_repo.schema import PRODUCT_ID

SUPERSEDED, GONE = 1, 2
"""Flags of a row: a later row of the product is in the index; the product has left the shop."""


@dataclass(frozen=True)
class Selection:
    """The rows that a search may return, in each segment."""

    rows: tuple[Ints, ...]
    """For each segment its rows, ascending."""

    def __len__(self) -> int:
        return sum(map(len, self.rows))


class ProductIndex:
    """An index of n rows: those of the main segment first, then those that were added since.

    A row is a number from 0 to n - 1. Hidden rows, of products that were replaced or are gone, are never returned.
    An open index stays as it is when `produce index` replaces it.
    """

    def __init__(self, folder: Path, manifest: Manifest, segments: Sequence[Segment], flags: NDArray[np.uint8]) -> None:
        """Wrap the parts of an index; `open_index` reads them."""
        self.folder = folder
        self.manifest = manifest
        self.segments = tuple(segments)
        self.flags = flags
        self._has_hidden = bool(flags.any())
        self.starts = np.cumsum([0, *map(len, segments)])
        self._columns = [FilterColumns(segment.rows) for segment in segments]
        self._positions: dict[tuple[int, str], Ints] = {}
        self._visible: dict[tuple[int, str], AllowedVectors | None] = {}

    @property
    def encoder_version(self) -> str:
        """The encoder of the vectors, as `name@fingerprint`."""
        return self.manifest.encoder_version

    @cached_property
    def vectors(self) -> list[str]:
        """Names of the vectors, such as `image_vector`."""
        return sorted({name for segment in self.segments for name in segment.vectors})

    @cached_property
    def filled_vectors(self) -> list[str]:
        """Those of `vectors` that at least one product has."""
        return [
            name
            for name in self.vectors
            if any(len(segment.vectors[name].matrix) for segment in self.segments if name in segment.vectors)
        ]

    @cached_property
    def all(self) -> Selection:
        """Every row that is not hidden."""
        return self.select(ProductFilter())

    def select(self, where: ProductFilter) -> Selection:
        """Return the rows that meet a filter and are not hidden."""
        rows = []
        for number, columns in enumerate(self._columns):
            flags = self.flags[self.starts[number] : self.starts[number + 1]]
            found = columns.select(where)
            rows.append(found[flags[found] == 0] if self._has_hidden else found)
        return Selection(tuple(rows))

    def list_values(self, column: str) -> list[str]:
        """Return the distinct texts of a column, sorted; also those of hidden rows."""
        return sorted({value for columns in self._columns for value in columns.list_values(column)})

    def search(
        self, vector: str, query: Vectors, top_k: int, selection: Selection | None = None, *, exact: bool = False
    ) -> tuple[Ints, Vectors]:
        """Return the rows with the largest dot products, and these, descending.

        Args:
            vector: name of the vector.
            query: float32 [d].
            top_k: number of results, at least 1; fewer if the selection has fewer rows with this vector.
            selection: from `select`; None: every row that is not hidden.
            exact: compare every vector.

        Raises:
            NotFoundError: the index has no such vector.
            InvalidInputError: the query has another width, or `top_k` is less than 1.
        """
        if vector not in self.vectors:
            raise NotFoundError(f"the index has no {vector}; it has {', '.join(self.vectors)}")
        if top_k < 1:
            raise InvalidInputError(f"top_k is {top_k}; expected at least 1")
        parts = [
            self._search_segment(number, vector, query, top_k, selection, exact=exact)
            for number in range(len(self.segments))
        ]
        if len(parts) == 1:
            return parts[0]
        rows, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.lexsort((rows, -scores))[:top_k]
        return rows[order], scores[order]

    def _search_segment(
        self,
        number: int,
        vector: str,
        query: Vectors,
        top_k: int,
        selection: Selection | None,
        *,
        exact: bool,
    ) -> tuple[Ints, Vectors]:
        """Return rows and scores from one segment; none if it lacks the vector."""
        column = self.segments[number].vectors.get(vector)
        if column is None or not len(column.matrix):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if query.shape != (column.matrix.shape[1],):
            raise InvalidInputError(
                f"the query has {query.shape[-1]} values, and {vector} of the index has {column.matrix.shape[1]}; "
                "expected a vector of its encoder"
            )
        allowed = self._allow(number, vector, selection)
        share = 1.0 if allowed is None else len(allowed) / len(column.matrix)
        candidates = recall.choose_candidates(self.manifest.recall.get(vector), share)
        found, scores = column.search(query, top_k, allowed, candidates=candidates, exact=exact)
        rows = found if column.rows is None else column.rows[found]
        return rows + self.starts[number] if number else rows, scores

    def search_batch(self, vector: str, queries: Vectors, top_k: int) -> tuple[Ints, Vectors]:
        """Return for each query the rows with the largest dot products, and these, descending: [queries, top_k] each.

        Rows that are hidden are left out. The row is -1 where there are fewer. Many queries take less time than by
        `search`, above all if the index has no graph.

        Args:
            vector: name of the vector, one of `vectors`.
            queries: float32 [queries, d].
            top_k: number of results, at least 1.
        """
        parts = []
        for number, segment in enumerate(self.segments):
            column = segment.vectors.get(vector)
            if column is None or not len(column.matrix):
                continue
            allowed = self._allow(number, vector, None)
            candidates = recall.choose_candidates(self.manifest.recall.get(vector), 1.0)
            found, scores = column.search_batch(queries, top_k, allowed, candidates=candidates)
            rows = found if column.rows is None else column.rows[found]
            parts.append((np.where(found < 0, -1, rows + self.starts[number]), scores))
        if not parts:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        rows, scores = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        scores = np.where(rows < 0, -np.inf, scores)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def _allow(self, number: int, vector: str, selection: Selection | None) -> AllowedVectors | None:
        """Return the vectors of a segment that a search may return; None for all of them."""
        if selection is not None:
            return self._to_allowed(number, vector, selection.rows[number])
        if not self._has_hidden:
            return None
        key = number, vector
        if key not in self._visible:
            self._visible[key] = self._to_allowed(number, vector, self.all.rows[number])
        return self._visible[key]

    def _to_allowed(self, number: int, vector: str, rows: Ints) -> AllowedVectors | None:
        """Return the vectors of some rows of a segment; None if it has no others."""
        column = self.segments[number].vectors[vector]
        positions = rows if column.rows is None else self._to_positions(number, vector, rows)
        return None if len(positions) == len(column.matrix) else AllowedVectors(positions, len(column.matrix))

    def _to_positions(self, number: int, vector: str, rows: Ints) -> Ints:
        """Return the positions of some rows among the vectors of a segment; rows without a vector are left out."""
        key = number, vector
        if key not in self._positions:
            segment = self.segments[number]
            owners = segment.vectors[vector].rows
            assert owners is not None
            self._positions[key] = nearest.find_positions(owners, len(segment))
        positions = self._positions[key][rows]
        return positions[positions >= 0]

    def take_vectors(self, vector: str, rows: Ints) -> Vectors:
        """Return the vectors of some rows, float32 [rows, d]; NaN where a row has none.

        Args:
            vector: one of `vectors`.
            rows: rows of the index, in any order.
        """
        width = max(one.vectors[vector].matrix.shape[1] for one in self.segments if vector in one.vectors)
        taken = np.full((len(rows), width), np.nan, np.float32)
        for number, segment in enumerate(self.segments):
            inside = (rows >= self.starts[number]) & (rows < self.starts[number + 1])
            if inside.any() and vector in segment.vectors:
                taken[inside] = segment.vectors[vector].take(rows[inside] - self.starts[number], len(segment))
        return taken

    def take_lines(self, array: str, columns: Sequence[int], rows: Ints) -> NDArray[np.float32]:
        """Return part of a segment array that has one line for each word, such as WORDS: float32 [columns, rows].

        NaN where a segment has no such array.

        Args:
            array: name of an array [lines, rows of the segment].
            columns: numbers of the lines to return.
            rows: rows of the index, in any order.
        """
        taken = np.full((len(columns), len(rows)), np.nan, np.float32)
        for number, segment in enumerate(self.segments):
            inside = np.flatnonzero((rows >= self.starts[number]) & (rows < self.starts[number + 1]))
            if len(inside) and array in segment.arrays:
                for line, column in enumerate(columns):
                    taken[line, inside] = segment.arrays[array][column][rows[inside] - self.starts[number]]
        return taken

    def take_array(self, name: str, rows: Ints) -> NDArray[Any] | None:
        """Return some rows of an array [rows, width] that every segment has; None if one lacks it."""
        arrays = [segment.arrays.get(name) for segment in self.segments]
        taken: NDArray[Any] | None = None
        for number, values in enumerate(arrays):
            if values is None:
                return None
            if taken is None:
                taken = np.empty((len(rows), values.shape[1]), values.dtype)
            inside = (rows >= self.starts[number]) & (rows < self.starts[number + 1])
            taken[inside] = values[rows[inside] - self.starts[number]]
        return taken

    def score_keywords(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Return the BM25 score of every row, float32 [n], hidden ones included."""
        if not self.segments:
            return np.empty(0, np.float32)
        main = self.segments[0].keywords
        scores = [main.score(words)]
        scores += [main.score_others(one.rows["title"].to_pylist(), words) for one in self.segments[1:]]
        return np.concatenate(scores)

    def has_word(self, word: str) -> bool:
        """Return whether any title of the index has a word; hidden rows count."""
        return any(segment.keywords.has_word(word) for segment in self.segments)

    def take(self, rows: Ints, columns: Sequence[str] | None = None) -> pa.Table:
        """Return rows of INDEX_ROWS in the given order; None takes all columns."""
        tables = [one.rows if columns is None else one.rows.select(list(columns)) for one in self.segments]
        return pa.concat_tables(tables).take(pa.array(rows))

    def find_rows(self, product_ids: Sequence[str]) -> Ints:
        """Return the newest row of each product, int64 [ids]; -1 for a product that is not in the index.

        The row of a product that is gone counts.
        """
        found = np.full(len(product_ids), -1, np.int64)
        for number, segment in enumerate(self.segments):
            rows = segment.find_rows(product_ids)
            is_newest = rows >= 0
            is_newest[is_newest] = (self.flags[self.starts[number] + rows[is_newest]] & SUPERSEDED) == 0
            found[is_newest] = self.starts[number] + rows[is_newest]
        return found

    def list_ids(self, selection: Selection) -> list[str]:
        """Return the ids of the selected products, in the order of the rows."""
        rows = np.concatenate([start + one for start, one in zip(self.starts[:-1], selection.rows, strict=True)])
        return self.take(rows, [PRODUCT_ID])[PRODUCT_ID].to_pylist()


def open_index(folder: Path, encoder_version: str | None = None) -> ProductIndex:
    """Open an index by mmap.

    Args:
        folder: of the index, see `rows.find_folder`.
        encoder_version: the encoder whose vectors are wanted; None takes any.

    Raises:
        NotFoundError: there is no index.
        EncoderMismatchError: the index is of another encoder version.
        CorruptDataError: a file is missing, damaged or cut short.
    """
    for attempt in range(2):
        manifest = manifests.read_manifest(folder, encoder_version)
        try:
            segments = [open_segment(folder / name) for name in manifest.segments]
            flags = np.load(folder / manifest.flags)
        except Exception:
            if attempt or manifests.read_manifest(folder).generation == manifest.generation:
                raise
            continue  # `produce index` replaced the index meanwhile
        return ProductIndex(folder, manifest, segments, flags)
    raise AssertionError("unreachable")


def describe(index: ProductIndex) -> dict[str, Any]:
    """Return what an index has: encoder version, generation, products, vectors and their measured recall."""
    return {
        "encoder_version": index.encoder_version,
        "generation": index.manifest.generation,
        "products": len(index.all),
        "rows": [len(segment) for segment in index.segments],
        "recall": index.manifest.recall,
    }
