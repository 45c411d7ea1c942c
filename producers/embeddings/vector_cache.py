"""A cache of the vectors of images and titles by the hash of their content, so that no content is encoded twice.

The cache is an LMDB file beside the Delta tables. Its cost depends on the number of lookups, not on its size. A vector
is on disk before the row that needs it is committed, so a killed run loses none. The embedding rows hold the same
vectors: if the file is lost, contents are only encoded again.

    key    8 bytes hash of the encoder version | "i" for an image, "t" for a title | 16 bytes hash of the content
    value  the vector, float32 [dim] in this machine's byte order

    key    8 bytes hash of the encoder version | "n"
    value  a text, see shared_cache.py
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from feature_repo.content_hash import content_hash
from feature_repo.errors import CorruptDataError
from feature_repo.files.lmdb_environment import SharedEnvironment

FOLDER = "encoded"
"""Folder of the cache, in the folder of the Delta tables."""
IMAGE, TITLE = b"i", b"t"
NOTE = b"n"
INITIAL_MAP_SIZE = 1 << 28

Vectors = NDArray[np.float32]


class VectorCache:
    """The cached vectors of one encoder version, by the hash of the image or title. `open_cache` opens a cache."""

    def __init__(self, environment: SharedEnvironment, encoder_version: str, dim: int) -> None:
        """Wrap an open LMDB environment.

        Args:
            environment: open for writing.
            encoder_version: `name@fingerprint`; only vectors of this version are read and written.
            dim: width of a vector.
        """
        self._environment = environment
        self._version = content_hash(encoder_version.encode())[:8]
        self._dim = dim

    def of_encoder(self, encoder_version: str, dim: int) -> "VectorCache":
        """Return the cached vectors of another encoder version in the same file, of width `dim`."""
        return VectorCache(self._environment, encoder_version, dim)

    def get(self, modality: bytes, hashes: Sequence[bytes | None]) -> Vectors:
        """Return vectors float32 [n, dim], in the order of the hashes; NaN where a hash is None or has no vector.

        Args:
            modality: IMAGE or TITLE; a hash has one vector for each.
            hashes: content hashes of 16 bytes [n]; may repeat, or be empty.
        """
        vectors = np.full((len(hashes), self._dim), np.nan, np.float32)

        def work(environment: lmdb.Environment) -> None:
            with environment.begin(buffers=True) as transaction:
                for row, hash_ in enumerate(hashes):
                    value = None if hash_ is None else transaction.get(self._version + modality + hash_)
                    if value is not None:
                        vectors[row] = np.frombuffer(value, np.float32)

        self._environment.run(work)
        return vectors

    def has(self, modality: bytes, hashes: Sequence[bytes | None]) -> NDArray[np.bool_]:
        """Return whether each hash has a vector, bool [n], in the order of the hashes; False for None.

        Args:
            modality: IMAGE or TITLE; a hash has one vector for each.
            hashes: content hashes of 16 bytes [n]; may repeat, or be empty.
        """

        def work(environment: lmdb.Environment) -> NDArray[np.bool_]:
            with environment.begin(buffers=True) as transaction:
                is_cached = (
                    hash_ is not None and transaction.get(self._version + modality + hash_) is not None
                    for hash_ in hashes
                )
                return np.fromiter(is_cached, bool, len(hashes))

        return self._environment.run(work)

    def put(self, modality: bytes, hashes: Sequence[bytes], vectors: Vectors) -> None:
        """Store vectors; they are on disk when this returns. A hash that has a vector keeps it.

        The file grows as needed. Several processes may write at once; they wait for each other.

        Args:
            modality: IMAGE or TITLE; a hash has one vector for each.
            hashes: content hashes of 16 bytes [n]; may be empty. Of a repeated hash one vector is stored, not always
                the first.
            vectors: float32 [n, dim], without NaN. Neither dtype nor width is checked.

        Raises:
            ValueError: there are not as many vectors as hashes; then nothing is stored.
        """
        rows = sorted(
            (self._version + modality + hash_, row.tobytes()) for hash_, row in zip(hashes, vectors, strict=True)
        )

        def work(environment: lmdb.Environment) -> None:
            with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                cursor.putmulti(rows, overwrite=False)

        self._environment.run(work)

    def read_note(self) -> str | None:
        """Return what `write_note` stored for this encoder version; None without any."""

        def work(environment: lmdb.Environment) -> str | None:
            with environment.begin() as transaction:
                value = transaction.get(self._version + NOTE)
                return None if value is None else value.decode()

        return self._environment.run(work)

    def write_note(self, text: str) -> None:
        """Store a text beside the vectors of this encoder version, in place of an earlier one."""

        def work(environment: lmdb.Environment) -> None:
            with environment.begin(write=True) as transaction:
                transaction.put(self._version + NOTE, text.encode())

        self._environment.run(work)

    def clear(self) -> int:
        """Remove all vectors of this encoder version, and its note; return the number of removed keys."""

        def work(environment: lmdb.Environment) -> int:
            with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                removed = 0
                while cursor.set_range(self._version) and bytes(cursor.key()[: len(self._version)]) == self._version:
                    removed += cursor.delete()
                return removed

        return self._environment.run(work)


@contextmanager
def open_cache(folder: Path, encoder_version: str, dim: int) -> Iterator[VectorCache]:
    """Open the cache in a folder; create both if they do not exist. It is closed when the context ends.

    Args:
        folder: folder of the LMDB file; it holds the vectors of all encoder versions.
        encoder_version: `name@fingerprint`; only vectors of this version are read and written.
        dim: width of a vector.

    Raises:
        CorruptDataError: LMDB cannot read or write the file, now or within the context; the disk may be full.
    """
    repair = "remove the folder: its contents are then encoded again"
    try:
        with closing(SharedEnvironment(folder, map_size=INITIAL_MAP_SIZE, repair=repair)) as environment:
            yield VectorCache(environment, encoder_version, dim)
    except lmdb.Error as error:
        raise CorruptDataError(
            f"LMDB of cached vectors at {folder}: {error}; check the free disk space, or remove the folder: its "
            "contents are then encoded again"
        ) from error
