"""Changes to an index: build it, add and replace products, hide those that are gone, forget products.

Every change writes new files beside the old ones and then replaces the manifest, so a reader sees one state or the
other, and a killed run changes nothing. The main segment is written by `build_index` only. `append_products` writes the
products that were added or replaced since into one small segment; how long it takes does not depend on the main one,
except for one byte for each row.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.errors import VitrineError
from feature_repo.index import manifest as manifests
from feature_repo.index import recall
from feature_repo.index.manifest import Manifest
from feature_repo.index.nearest import Ints, Vectors
from feature_repo.index.product_index import GONE, SUPERSEDED, ProductIndex, open_index
from feature_repo.index.rows import FOLDER, GROUP_FOLDER, WORDS
from feature_repo.index.segment import Segment, open_segment, write_segment
from feature_repo.schema import PRODUCT_ID

FLAT_ROWS = 50_000
"""Up to this number of products there is one segment without graphs, which each change writes anew."""
MAX_APPENDED = 20_000
MAX_APPENDED_SHARE = 0.1
"""The segments are merged when more rows than MAX_APPENDED, and than this share of the main segment, were added or
hidden since it was written."""


@dataclass(frozen=True)
class IndexedProducts:
    """n products, each once."""

    rows: pa.Table
    """[n] rows of INDEX_ROWS."""
    vectors: Mapping[str, Vectors]
    """float32 [n, d] by name, of unit length; NaN where a product has none."""
    arrays: Mapping[str, NDArray[Any]]
    """Further values by name: [n, width], or [lines, n] for WORDS."""

    def __len__(self) -> int:
        return self.rows.num_rows

    def take(self, rows: Ints) -> "IndexedProducts":
        """Return some of the products, in the given order."""
        return IndexedProducts(
            self.rows.take(pa.array(rows)),
            {name: matrix[rows] for name, matrix in self.vectors.items()},
            {name: values[:, rows] if name == WORDS else values[rows] for name, values in self.arrays.items()},
        )


def needs_merge(index: ProductIndex, added: int) -> bool:
    """Return whether an index must be built anew to take `added` products, new and replaced ones together."""
    main = len(index.segments[0])
    if len(index.flags) + added <= FLAT_ROWS or main <= FLAT_ROWS:
        return True
    hidden = int((index.flags[:main] & SUPERSEDED > 0).sum())
    appended = len(index.flags) - main + added
    return max(hidden, appended) > max(MAX_APPENDED, MAX_APPENDED_SHARE * main)


def gather_products(index: ProductIndex | None, added: IndexedProducts | None = None) -> IndexedProducts:
    """Return all products of an index, those that are gone included, with some added or replaced.

    Args:
        index: None stands for an index without products.
        added: replaces products of the same id; None: nothing.
    """
    parts = [] if index is None else [_read_segment(one) for one in index.segments]
    if index is not None:
        starts = index.starts
        for number, part in enumerate(parts):
            is_kept = (index.flags[starts[number] : starts[number + 1]] & SUPERSEDED) == 0
            if added is not None:
                replaced = index.segments[number].find_rows(added.rows[PRODUCT_ID].to_pylist())
                is_kept[replaced[replaced >= 0]] = False
            parts[number] = part.take(np.flatnonzero(is_kept))
    return concatenate([*parts, *([] if added is None else [added])])


def concatenate(parts: Sequence[IndexedProducts]) -> IndexedProducts:
    """Return the products of all parts, at least one; a vector or array that a part lacks is NaN there.

    A part in which no product has a vector may have it with another width.
    """

    def join(name: str, kind: str) -> NDArray[Any]:
        values = [getattr(part, kind).get(name) for part in parts]
        axis = 1 if name == WORDS else 0
        present = [one for one in values if one is not None]
        example = present[0] if name == WORDS else max(present, key=lambda one: one.shape[1])
        width = example.shape[1 - axis]
        filled = [
            np.full((width, len(part)) if axis else (len(part), width), np.nan, example.dtype)
            if one is None or one.shape[1 - axis] != width
            else one
            for one, part in zip(values, parts, strict=True)
        ]
        return np.concatenate(filled, axis=axis)

    names = {kind: sorted({name for part in parts for name in getattr(part, kind)}) for kind in ("vectors", "arrays")}
    return IndexedProducts(
        pa.concat_tables([part.rows for part in parts]).combine_chunks(),
        {name: join(name, "vectors") for name in names["vectors"]},
        {name: join(name, "arrays") for name in names["arrays"]},
    )


def build_index(
    folder: Path,
    encoder_version: str,
    products: IndexedProducts,
    *,
    gone: Sequence[str] = (),
    sources: Mapping[str, int] | None = None,
    word_model: bytes | None = None,
    searched: Collection[str] | None = None,
    has_keywords: bool = True,
) -> Manifest:
    """Write an index of some products, at least one, in place of an earlier one; and measure its recall.

    Args:
        folder: of the index; created if missing.
        encoder_version: the encoder of the vectors.
        products: the products.
        gone: ids of products that have left the shop; they are hidden.
        sources: Delta table -> the version that was read.
        word_model: file content of the model whose scores are the array WORDS; None if there is none.
        searched: names of the vectors that get a graph, if there are more than FLAT_ROWS products; None: all.
        has_keywords: index the words of the titles. What is appended later follows.

    Raises:
        OSError: the disk is full. The earlier index stays.
    """
    generation = _next_generation(folder)
    segment_name, flags_name = f"main-{generation:06d}", f"flags-{generation:06d}.npy"
    searched = products.vectors if searched is None else searched
    _discard(folder / segment_name)
    write_segment(
        folder / segment_name,
        products.rows,
        products.vectors,
        products.arrays,
        graphs=searched if len(products) > FLAT_ROWS else (),
        has_keywords=has_keywords,
    )
    segment = open_segment(folder / segment_name)
    np.save(folder / flags_name, _flag_gone([segment], gone))
    names = [segment_name, flags_name]
    model_name = None
    if word_model is not None:
        model_name = f"words-{generation:06d}.npz"
        (folder / model_name).write_bytes(word_model)
        names.append(model_name)
    manifest = Manifest(
        encoder_version,
        generation,
        (segment_name,),
        flags_name,
        manifests.list_sizes(folder, names),
        dict(sources or {}),
        model_name,
        {
            name: recall.measure_recall(column, _draw_queries(segment, name))
            for name, column in segment.vectors.items()
            if name in searched and len(column.matrix)
        },
    )
    manifests.write_manifest(folder, manifest)
    return manifest


def append_products(
    index: ProductIndex,
    added: IndexedProducts | None,
    *,
    gone: Sequence[str] = (),
    sources: Mapping[str, int] | None = None,
) -> Manifest:
    """Add or replace products without touching the main segment, and set which products are gone.

    Args:
        index: the open index. It stays as it is; open it again to see the change.
        added: products, each once; None: none.
        gone: ids of all products that have left the shop, those that were hidden before included.
        sources: Delta table -> the version that was read.
    """
    folder, generation = index.folder, index.manifest.generation + 1
    main, flags_name = index.segments[0], f"flags-{generation:06d}.npy"
    parts = [_read_segment(one) for one in index.segments[1:]]
    for number, part in enumerate(parts, start=1):
        is_kept = (index.flags[index.starts[number] : index.starts[number + 1]] & SUPERSEDED) == 0
        if added is not None:
            replaced = index.segments[number].find_rows(added.rows[PRODUCT_ID].to_pylist())
            is_kept[replaced[replaced >= 0]] = False
        parts[number - 1] = part.take(np.flatnonzero(is_kept))
    parts += [added] if added is not None and len(added) else []
    segments, names = [main], [index.manifest.segments[0], flags_name]
    if sum(map(len, parts)):
        name = f"added-{generation:06d}"
        products = concatenate(parts)
        _discard(folder / name)
        write_segment(
            folder / name, products.rows, products.vectors, products.arrays, graphs=(), has_keywords=main.has_keywords
        )
        segments.append(open_segment(folder / name))
        names.append(name)
    flags = _flag_gone(segments, gone)
    flags[: len(main)] |= index.flags[: len(main)] & SUPERSEDED
    if added is not None:
        replaced = main.find_rows(added.rows[PRODUCT_ID].to_pylist())
        flags[replaced[replaced >= 0]] |= SUPERSEDED
    np.save(folder / flags_name, flags)
    kept = {
        name: size for name, size in index.manifest.files.items() if name.startswith(index.manifest.segments[0] + "/")
    }
    if index.manifest.word_model is not None:
        names.append(index.manifest.word_model)
    manifest = replace(
        index.manifest,
        generation=generation,
        segments=tuple(name for name in names if (folder / name).is_dir()),
        flags=flags_name,
        files=kept | manifests.list_sizes(folder, names[1:]),
        sources={**index.manifest.sources, **(sources or {})},
    )
    manifests.write_manifest(folder, manifest)
    return manifest


def forget_products(offline: Path, product_ids: Sequence[str], *, dry_run: bool = False) -> int:
    """Remove products from every index under a folder of Delta tables; return the number of rows removed.

    Indexes are those of `produce index` and of `produce groups`.

    An index that has one of them is written anew, because a segment is never changed: that takes minutes for a million
    products. A damaged index is an error, because it might hold them.

    Args:
        offline: the folder of the Delta tables.
        product_ids: ids; unknown ones are ignored.
        dry_run: only count.
    """
    removed = 0
    for file in sorted(file for name in (FOLDER, GROUP_FOLDER) for file in offline.glob(f"{name}/*/{manifests.FILE}")):
        index = open_index(file.parent)
        found = [segment.find_rows(product_ids) for segment in index.segments]
        rows = sum(int((one >= 0).sum()) for one in found)
        removed += rows
        if not rows or dry_run:
            continue
        products = gather_products(index)
        forgotten = pa.array(list(product_ids), pa.string())
        is_kept = ~pc.is_in(products.rows[PRODUCT_ID], value_set=forgotten).to_numpy()
        if not is_kept.any():
            manifests.remove_index(file.parent)
            continue
        model = index.manifest.word_model
        build_index(
            index.folder,
            index.encoder_version,
            products.take(np.flatnonzero(is_kept)),
            gone=list_gone(index),
            sources=index.manifest.sources,
            word_model=(index.folder / model).read_bytes() if model else None,
            searched=list(index.manifest.recall),
            has_keywords=index.segments[0].has_keywords,
        )
    return removed


def list_gone(index: ProductIndex) -> list[str]:
    """Return the ids of the products that are hidden because they have left the shop."""
    rows = np.flatnonzero((index.flags & GONE > 0) & (index.flags & SUPERSEDED == 0))
    return index.take(rows, [PRODUCT_ID])[PRODUCT_ID].to_pylist()


def _read_segment(segment: Segment) -> IndexedProducts:
    """Return the products of a segment, hidden ones included."""
    rows = np.arange(len(segment))
    return IndexedProducts(
        segment.rows, {name: one.take(rows, len(segment)) for name, one in segment.vectors.items()}, segment.arrays
    )


def _flag_gone(segments: Sequence[Segment], gone: Sequence[str]) -> NDArray[np.uint8]:
    """Return flags of the rows of some segments, GONE for the given products."""
    flags = [np.zeros(len(segment), np.uint8) for segment in segments]
    for segment, one in zip(segments, flags, strict=True):
        rows = segment.find_rows(list(gone))
        one[rows[rows >= 0]] = GONE
    return np.concatenate(flags)


def _draw_queries(segment: Segment, vector: str) -> Vectors:
    """Return the vectors that recall is measured with, float32 [at most QUERIES, d]; the same in each call.

    Image vectors are searched by text vectors and the reverse, where the segment has both; others by normalized sums of
    two random vectors. A product's own vector is too easy: a search that finds the product has its nearest ones beside
    it.
    """
    column = segment.vectors[vector]
    other = segment.vectors.get({"image_vector": "text_vector", "text_vector": "image_vector"}.get(vector, ""))
    has_other = other is not None and len(other.matrix) > 0 and other.matrix.shape[1] == column.matrix.shape[1]
    source = other.matrix if other is not None and has_other else column.matrix
    drawn = np.random.default_rng(0).integers(0, len(source), (2, min(recall.QUERIES, len(source))))
    if has_other:
        return np.asarray(source[drawn[0]])
    sums = source[drawn[0]] + source[drawn[1]]
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)


def _next_generation(folder: Path) -> int:
    """Return the number after that of the index in a folder; 1 without one that can be read."""
    try:
        return manifests.read_manifest(folder).generation + 1
    except VitrineError:
        numbers = [int(path.stem.split("-")[1]) for path in folder.glob("*-*") if path.stem.split("-")[1].isdigit()]
        return max(numbers, default=0) + 1


def _discard(path: Path) -> None:
    """Remove what a killed run left at a path."""
    manifests.remove_index(path)
