"""Vectors of pictures and titles by the hash of their content: what has been encoded is never encoded again.

An LMDB file beside the Delta tables. Work on it grows with what is asked and not with what there is; a vector is put
there, on disk, before the row that needs it is committed, so that a killed run loses none. The rows hold the same
vectors: lost, the file only costs encoding again. Vectors are float32, in this process's byte order, at the key

    8 bytes of the encoder version's hash | "i" for images, "t" for titles | 16 bytes of the content's hash
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from feature_repo.content_hash import content_hash
from feature_repo.errors import VitrineError
from feature_repo.lmdb_environment import open_environment

FOLDER = "encoded"
IMAGE, TITLE = b"i", b"t"
FIRST_MAP_SIZE = 1 << 28

Vectors = NDArray[np.float32]


class VectorCache:
    """What one encoder version has encoded; see `opened`."""

    def __init__(self, environment: lmdb.Environment, encoder_version: str, dim: int) -> None:
        self._environment = environment
        self._version = content_hash(encoder_version.encode())[:8]
        self._dim = dim

    def get(self, modality: bytes, hashes: Sequence[bytes | None]) -> Vectors:
        """[n, dim], NaN where there is no hash, or no vector of it."""
        found = np.full((len(hashes), self._dim), np.nan, np.float32)
        with self._environment.begin(buffers=True) as transaction:
            for row, hash_ in enumerate(hashes):
                value = None if hash_ is None else transaction.get(self._version + modality + hash_)
                if value is not None:
                    found[row] = np.frombuffer(value, np.float32)
        return found

    def has(self, modality: bytes, hashes: Sequence[bytes | None]) -> NDArray[np.bool_]:
        """[n] whether there is a vector."""
        with self._environment.begin(buffers=True) as transaction:
            there = (
                hash_ is not None and transaction.get(self._version + modality + hash_) is not None for hash_ in hashes
            )
            return np.fromiter(there, bool, len(hashes))

    def put(self, modality: bytes, hashes: Sequence[bytes], vectors: Vectors) -> None:
        """Keep vectors [n, dim], none of them NaN; on disk when this returns."""
        rows = sorted(
            (self._version + modality + hash_, row.tobytes()) for hash_, row in zip(hashes, vectors, strict=True)
        )
        while True:
            try:
                with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                    cursor.putmulti(rows, overwrite=False)
                return
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.MapResizedError:  # by another process
                self._environment.set_mapsize(0)


@contextmanager
def open_cache(folder: Path, encoder_version: str, dim: int) -> Iterator[VectorCache]:
    """The contents in a folder, made if it is not there.

    Raises:
        VitrineError: LMDB cannot read or write it.
    """
    try:
        with open_environment(folder, map_size=FIRST_MAP_SIZE) as environment:
            yield VectorCache(environment, encoder_version, dim)
    except lmdb.Error as error:
        raise VitrineError(
            f"LMDB of encoded contents at {folder}: {error}; check the disk's free space, or remove the folder: "
            "what it held is encoded again"
        ) from error
