"""The content hash of each picture of a block, of as few pictures read as possible.

A file whose path, size and time of change are what they were has the hash it had; a key of an LMDB may be the hash. Any
other picture is read, but not decoded.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import image_store, images
from feature_repo.content_hash import content_hash
from feature_repo.images import UnusableImageError
from producers.catalogue import row_hash
from producers.catalogue.row_hash import Digests

READERS = 8
"""Threads that read pictures: a file system answers many at once, and hashing lets other threads run."""


def of_block(
    versions: pa.Table, wanted: NDArray[np.bool_], before: Digests, stat_before: Digests, *, rehash: bool
) -> tuple[pa.Array, pa.Array]:
    """`image_hash` and `image_stat` of schema.CATALOGUE for rows of versions; null where not wanted or not readable.

    Args:
        versions: [rows] with `image` and `image_bytes`.
        wanted: [rows]
        before: [rows, 2] the hash of the product's newest version, zeros where there is none.
        stat_before: [rows, 2] its `image_stat`.
        rehash: read every picture, whatever size and time say.
    """
    if versions["image_bytes"].null_count < len(versions):
        return row_hash.of_each(versions["image_bytes"]), pa.nulls(len(versions), row_hash.BINARY)
    paths = versions["image"].to_pylist() if versions["image"].null_count < len(versions) else []
    if not paths:
        return pa.nulls(len(versions), row_hash.BINARY), pa.nulls(len(versions), row_hash.BINARY)
    seen = [stat(path) if path is not None and use else None for path, use in zip(paths, wanted.tolist(), strict=True)]
    stats = row_hash.of_texts(pa.chunked_array([pa.array(seen, pa.string())]))
    kept = (stats == stat_before).all(axis=1) & before.any(axis=1) & (not rehash)
    hashes: list[bytes | None] = [None] * len(paths)
    known = row_hash.to_arrow(before[kept]).to_pylist()
    for row, value in zip(np.flatnonzero(kept).tolist(), known, strict=True):
        hashes[row] = value
    left = [row for row in np.flatnonzero(wanted & ~kept).tolist() if paths[row] is not None]
    with ThreadPoolExecutor(READERS) as readers:
        for row, value in zip(left, readers.map(_of_file, [paths[row] for row in left]), strict=True):
            hashes[row] = value
    there = pa.array([value is not None for value in seen])
    return pa.array(hashes, row_hash.BINARY), pc.if_else(there, row_hash.to_arrow(stats), None)


def stat(path: str) -> str | None:
    """Path, size and time of change of a file as one text; None where there is no file, or where it lies in an LMDB."""
    if image_store.is_stored(path):
        return None
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return f"{found.st_size}:{found.st_mtime_ns}:{path}"


def _of_file(path: str) -> bytes | None:
    said = image_store.read_key_hash(path) if image_store.is_stored(path) else None
    if said is not None:
        return said
    try:
        return content_hash(images.read_bytes(Path(path)))
    except UnusableImageError:
        return None  # said, with its reason, by the step that encodes it
