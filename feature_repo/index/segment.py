"""A part of an index on disk: written once, opened by mmap.

SEGMENT/rows.arrow         rows.INDEX_ROWS, an Arrow file
SEGMENT/id_hashes.npy      uint64 [n], ascending, and id_rows.npy int64 [n], the rows with these hashes of ids
SEGMENT/VECTOR.npy         float32 [m, d]; or VECTOR.hnsw, a graph of faiss with the vectors
SEGMENT/VECTOR.rows.npy    int64 [m], the rows that have this vector; left out if all have
SEGMENT/ARRAY.array.npy    further values
SEGMENT/keywords/          BM25 of the titles, if the index is searched by words
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from feature_repo.errors import CorruptDataError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.index import keywords, nearest
from feature_repo.index.nearest import Ints, VectorColumn, Vectors
from feature_repo.schema import PRODUCT_ID

KEYWORDS = "keywords"

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Segment:
    """An open segment of n rows."""

    folder: Path
    rows: pa.Table
    """rows.INDEX_ROWS, memory-mapped."""
    vectors: Mapping[str, VectorColumn]
    """By name, such as `image_vector`."""
    arrays: Arrays
    """Further values by name, memory-mapped."""
    id_hashes: NDArray[np.uint64]
    """[n], ascending."""
    id_rows: Ints
    """[n], the row of each of `id_hashes`."""

    def __len__(self) -> int:
        return self.rows.num_rows

    @cached_property
    def keywords(self) -> keywords.KeywordIndex:
        """BM25 of the titles."""
        return keywords.open_keywords(self.folder / KEYWORDS)

    @property
    def has_keywords(self) -> bool:
        """Whether the words of the titles are indexed."""
        return (self.folder / KEYWORDS).is_dir()

    def find_rows(self, product_ids: Sequence[str]) -> Ints:
        """Return the row of each product, int64 [ids]; -1 for a product that is not in the segment."""
        hashes = hash_ids(product_ids)
        found = np.full(len(hashes), -1, np.int64)
        if not len(self) or not len(hashes):
            return found
        position = np.searchsorted(self.id_hashes, hashes)
        is_near = position < len(self)
        is_near[is_near] = self.id_hashes[position[is_near]] == hashes[is_near]
        rows = self.id_rows[position[is_near]]
        # Two ids share 64 bits once in ten thousand catalogues of 60 million; the ids themselves decide.
        stored = self.rows[PRODUCT_ID].take(pa.array(rows)).to_pylist()
        for i, row, product_id in zip(np.flatnonzero(is_near).tolist(), rows.tolist(), stored, strict=True):
            if product_ids[i] == product_id:
                found[i] = row
        return found


def hash_ids(product_ids: Sequence[str]) -> NDArray[np.uint64]:
    """Return 64 bits of BLAKE2b of each id."""
    digests = b"".join(hashlib.blake2b(one.encode(), digest_size=8).digest() for one in product_ids)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def write_segment(
    folder: Path,
    rows: pa.Table,
    vectors: Mapping[str, Vectors],
    arrays: Arrays,
    *,
    graphs: Collection[str],
    has_keywords: bool,
) -> None:
    """Write a segment completely or not at all.

    Args:
        folder: the folder to create, which must not exist.
        rows: n rows of INDEX_ROWS, at least one; product ids are distinct.
        vectors: float32 [n, d] of unit length by name; NaN where a product has none.
        arrays: further values by name.
        graphs: names of the vectors that get a graph; every search by another one is exact.
        has_keywords: index the words of the titles.
    """
    with replace_atomically(folder) as unfinished:
        unfinished.mkdir()
        with pa.OSFile(str(unfinished / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows.combine_chunks())
        hashes = hash_ids(rows[PRODUCT_ID].to_pylist())
        order = np.argsort(hashes, kind="stable")
        np.save(unfinished / "id_hashes.npy", hashes[order])
        np.save(unfinished / "id_rows.npy", order)
        for name, matrix in vectors.items():
            has_vector = ~np.isnan(matrix[:, 0])
            matrix = np.ascontiguousarray(matrix if has_vector.all() else matrix[has_vector], np.float32)
            if not has_vector.all():
                np.save(unfinished / f"{name}.rows.npy", np.flatnonzero(has_vector))
            if name in graphs and len(matrix):
                nearest.write_graph(nearest.build_graph(matrix), unfinished / f"{name}.hnsw")
            else:
                np.save(unfinished / f"{name}.npy", matrix)
        for name, values in arrays.items():
            np.save(unfinished / f"{name}.array.npy", values)
        if has_keywords:
            keywords.write_keywords(keywords.build_keywords(rows["title"].to_pylist()), unfinished / KEYWORDS)


def open_segment(folder: Path) -> Segment:
    """Open a segment by mmap.

    Raises:
        CorruptDataError: a file is missing or damaged.
    """
    try:
        rows = pa.ipc.open_file(pa.memory_map(str(folder / "rows.arrow"))).read_all()
        vectors = {}
        for file in sorted([*folder.glob("*_vector.npy"), *folder.glob("*_vector.hnsw")]):
            graph, matrix = nearest.open_graph(file) if file.suffix == ".hnsw" else (None, np.load(file, mmap_mode="r"))
            row_file = folder / f"{file.stem}.rows.npy"
            vectors[file.stem] = VectorColumn(matrix, np.load(row_file) if row_file.exists() else None, graph)
        arrays = {
            file.name.removesuffix(".array.npy"): np.load(file, mmap_mode="r") for file in folder.glob("*.array.npy")
        }
        hashes, id_rows = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("id_hashes", "id_rows"))
        return Segment(folder, rows, vectors, arrays, hashes, id_rows)
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise CorruptDataError(f"{folder}: the segment is damaged ({error}); run: produce index --rebuild") from error
