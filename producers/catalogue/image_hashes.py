"""The content hash of each image of a block, reading as few images as possible.

A file keeps its stored hash while its path, size and modification time are unchanged. The key of an image in an LMDB
may state the hash. Any other image is read, but not decoded.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.content_hash import content_hash
from feature_repo.images import decoding, image_store
from feature_repo.images.decoding import UnusableImageError
from producers.catalogue import row_hash
from producers.catalogue.row_hash import RowHashes

READER_THREADS = 8
"""Threads that read images. File systems serve parallel reads, and hashing releases Python's global lock."""


def hash_images(
    rows: pa.Table,
    is_wanted: NDArray[np.bool_],
    stored_hashes: RowHashes,
    stored_stats: RowHashes,
    *,
    rehash: bool,
) -> tuple[pa.Array, pa.Array]:
    """Return the columns `image_hash` and `image_stat` (schema.CATALOGUE) of n rows, in their order.

    A file whose path, size and modification time are unchanged keeps its stored hash and is not read. Neither is an
    image in an LMDB whose key states its hash, even if the LMDB lacks it. An image that cannot be read raises no error:
    the step that encodes it reports the reason.

    Args:
        rows: n rows with `image` (absolute paths) and `image_bytes`. If any row has bytes, all paths are ignored.
        is_wanted: [n], whether to hash the row's image. Bytes are always hashed.
        stored_hashes: [n, 2], `image_hash` of the product's newest stored version; zeros if it has none.
        stored_stats: [n, 2], `image_stat` of the same version; zeros if it has none.
        rehash: read every wanted file, also an unchanged one.

    Returns:
        Two binary arrays [n] with values of 16 bytes. `image_hash` is null where no hash is wanted, where there is no
        image and where it cannot be read. `image_stat` is null where no hash is wanted, and for images that are not
        existing files: bytes and images in an LMDB have none.
    """
    if rows["image_bytes"].null_count < len(rows):
        return row_hash.hash_contents(rows["image_bytes"]), pa.nulls(len(rows), row_hash.HASH_TYPE)
    paths = rows["image"].to_pylist() if rows["image"].null_count < len(rows) else []
    if not paths:
        return pa.nulls(len(rows), row_hash.HASH_TYPE), pa.nulls(len(rows), row_hash.HASH_TYPE)
    stat_texts = [
        read_file_stat(path) if path is not None and wanted else None
        for path, wanted in zip(paths, is_wanted.tolist(), strict=True)
    ]
    stats = row_hash.hash_texts(pa.chunked_array([pa.array(stat_texts, pa.string())]))
    is_unchanged = (stats == stored_stats).all(axis=1) & stored_hashes.any(axis=1) & (not rehash)
    hashes: list[bytes | None] = [None] * len(paths)
    for row, value in zip(
        np.flatnonzero(is_unchanged).tolist(),
        row_hash.to_arrow(stored_hashes[is_unchanged]).to_pylist(),
        strict=True,
    ):
        hashes[row] = value
    unread = [row for row in np.flatnonzero(is_wanted & ~is_unchanged).tolist() if paths[row] is not None]
    with ThreadPoolExecutor(READER_THREADS) as pool:
        for row, value in zip(unread, pool.map(_hash_file, [paths[row] for row in unread]), strict=True):
            hashes[row] = value
    is_file = pa.array([text is not None for text in stat_texts])
    return pa.array(hashes, row_hash.HASH_TYPE), pc.if_else(is_file, row_hash.to_arrow(stats), None)


def read_file_stat(path: str) -> str | None:
    """Return size in bytes, modification time in nanoseconds since 1970 and path of a file as `SIZE:TIME:PATH`.

    A link is followed. None if there is no file at the path or it is not accessible, and for an image in an LMDB.
    """
    if image_store.is_stored(path):
        return None
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return f"{status.st_size}:{status.st_mtime_ns}:{path}"


def _hash_file(path: str) -> bytes | None:
    """Return the content hash of an image, from its LMDB key if that states it; None if it cannot be read."""
    stated = image_store.read_key_hash(path) if image_store.is_stored(path) else None
    if stated is not None:
        return stated
    try:
        return content_hash(decoding.read_bytes(Path(path)))
    except UnusableImageError:
        return None
