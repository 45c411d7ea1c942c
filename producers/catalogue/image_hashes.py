"""The content hash of each image of a block, reading as few images as possible.

A file keeps its stored hash while its path, size and modification time are unchanged. The key of an image in an LMDB
may state the hash. Any other image is read, but not decoded.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.bucket import read_object_stat
from feature_repo.content_hash import content_hash
from feature_repo.images import decoding, image_store
from feature_repo.images.decoding import UnusableImageError
from feature_repo.images.picture_folders import read_stated_hash
from feature_repo.location import REQUESTS, BucketObject, BucketPath, find_object
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
    pictures: BucketPath | None = None,
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
        pictures: prefix of the bucket whose objects `image` may name, with its storage options; None for no bucket.

    Returns:
        Two binary arrays [n] with values of 16 bytes. `image_hash` is null where no hash is wanted, where there is no
        image and where it cannot be read. `image_stat` is null where no hash is wanted, and for images that are not
        existing files or objects: bytes and images in an LMDB have none.

    Raises:
        UnavailableError: the bucket does not answer.
    """
    if rows["image_bytes"].null_count < len(rows):
        return row_hash.hash_contents(rows["image_bytes"]), pa.nulls(len(rows), row_hash.HASH_TYPE)
    paths = rows["image"].to_pylist() if rows["image"].null_count < len(rows) else []
    if not paths:
        return pa.nulls(len(rows), row_hash.HASH_TYPE), pa.nulls(len(rows), row_hash.HASH_TYPE)
    stat_texts = read_stats(
        [path if wanted else None for path, wanted in zip(paths, is_wanted.tolist(), strict=True)], pictures
    )
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
    with ThreadPoolExecutor(READER_THREADS if pictures is None else REQUESTS) as pool:
        read = pool.map(partial(_hash_image, pictures=pictures), [paths[row] for row in unread])
        for row, value in zip(unread, read, strict=True):
            hashes[row] = value
    is_file = pa.array([text is not None for text in stat_texts])
    return pa.array(hashes, row_hash.HASH_TYPE), pc.if_else(is_file, row_hash.to_arrow(stats), None)


def read_stats(paths: Sequence[str | None], pictures: BucketPath | None) -> list[str | None]:
    """Return size in bytes, modification time in nanoseconds since 1970 and path of n files as `SIZE:TIME:PATH`.

    A link is followed. None for None, if there is no file at the path or it is not accessible, and for an image in an
    LMDB. Objects in a bucket are looked at in threads.

    Args:
        paths: [n], paths or URLs of objects.
        pictures: prefix of the bucket whose objects they may name; None for no bucket.

    Raises:
        UnavailableError: the bucket does not answer.
    """
    if pictures is None:
        return [None if path is None else _read_stat(path, None) for path in paths]
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(lambda path: None if path is None else _read_stat(path, pictures), paths))


def _read_stat(path: str, pictures: BucketPath | None) -> str | None:
    if image_store.is_stored(path):
        return None
    source = find_object(path, pictures)
    if isinstance(source, BucketObject):
        if read_stated_hash(source) is not None:
            return None
        stat = read_object_stat(source)
        return None if stat is None else f"{stat[0]}:{stat[1]}:{path}"
    try:
        status = source.stat()
    except (OSError, ValueError):
        return None
    return f"{status.st_size}:{status.st_mtime_ns}:{path}"


def _hash_image(path: str, pictures: BucketPath | None) -> bytes | None:
    """Return the content hash of an image, from its key or name if that states it; None if it cannot be read."""
    source = find_object(path, pictures)
    stated = image_store.read_key_hash(path) if image_store.is_stored(path) else None
    if isinstance(source, BucketObject):
        stated = read_stated_hash(source)
    if stated is not None:
        return stated
    try:
        return content_hash(decoding.read_bytes(source))
    except UnusableImageError:
        return None
