"""Outputs of towers on disk, so that new heads, another whitening or alignment need no tower.

An output is kept by the hash of its content and the fingerprint of its tower, in float16: 20 million outputs of 768
values take 31 GB. They are appended in the order in which they were computed, and read in that order.

    FOLDER/index                    LMDB: 6 bytes fingerprint | "i" or "t" | 16 bytes content hash -> row number, uint64
                                    6 bytes fingerprint | "i" or "t" -> number of rows, uint64
                                    "name" | "i" or "t" | name of a tower -> its fingerprint
    FOLDER/FINGERPRINT-i.f16        outputs of an image tower, float16 [rows, width], without a header
    FOLDER/FINGERPRINT-t.f16        outputs of a text tower

Rows are on disk before the index names them: a killed run leaves at most rows that the next one overwrites. Only memory
for the rows of one call is taken.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import CorruptDataError, EncoderMismatchError
from feature_repo.files.lmdb_environment import SharedEnvironment

FOLDER = "towers"
"""Folder of the outputs, in the folder of the Delta tables."""
IMAGE, TITLE = b"i", b"t"
INITIAL_MAP_SIZE = 1 << 28
ROW = struct.Struct("<Q")

Outputs = NDArray[np.float16]


class OutputStore:
    """Kept outputs of towers, by content hash. `open_outputs` opens a folder of them.

    Several processes may read and write at once; writers wait for each other.
    """

    def __init__(self, folder: Path, environment: SharedEnvironment) -> None:
        """Wrap an open LMDB environment and the folder of the files beside it."""
        self._folder, self._environment = folder, environment

    def check_name(self, modality: bytes, name: str, fingerprint: str) -> None:
        """Remember which tower has a name, and refuse another one of that name.

        Args:
            modality: IMAGE or TITLE.
            name: directory or hub name of the tower.
            fingerprint: of its weights and settings, in hex.

        Raises:
            EncoderMismatchError: outputs are kept of a tower of this name with another fingerprint.
        """
        key = b"name" + modality + name.encode()[-400:]  # a key of LMDB has at most 511 bytes

        def work(environment: lmdb.Environment) -> None:
            with environment.begin(write=True) as transaction:
                kept = transaction.get(key)
                if kept is not None and bytes(kept) != fingerprint.encode():
                    raise EncoderMismatchError(
                        f"tower `{name}` has changed: {bytes(kept).decode()} when its outputs were kept, {fingerprint} "
                        f"now; give the changed tower another name, or remove {self._folder} to encode everything again"
                    )
                transaction.put(key, fingerprint.encode())

        self._environment.run(work)

    def has(self, modality: bytes, fingerprint: str, hashes: Sequence[bytes | None]) -> NDArray[np.bool_]:
        """Return whether each content has an output, bool [n], in the order of the hashes; False for None."""
        return self._find_rows(modality, fingerprint, hashes) >= 0

    def get(self, modality: bytes, fingerprint: str, hashes: Sequence[bytes | None], width: int) -> Outputs:
        """Return outputs float16 [n, width], in the order of the hashes; NaN where a hash is None or has none.

        Args:
            modality: IMAGE or TITLE; a hash has one output for each.
            fingerprint: of the tower, in hex.
            hashes: content hashes of 16 bytes [n]; may repeat, or be empty.
            width: number of values of an output.

        Raises:
            CorruptDataError: the file of the outputs is missing or too short.
        """
        rows = self._find_rows(modality, fingerprint, hashes)
        outputs = np.full((len(hashes), width), np.nan, np.float16)
        kept = np.flatnonzero(rows >= 0)
        if not len(kept):
            return outputs
        file = self._file(modality, fingerprint)
        try:
            stored = np.memmap(file, np.float16, "r").reshape(-1, width)
            kept = kept[np.argsort(rows[kept], kind="stable")]  # in the order of the file
            outputs[kept] = stored[rows[kept]]
        except (OSError, ValueError, IndexError) as error:
            raise CorruptDataError(
                f"{file}: kept outputs of a tower are missing or cut off ({error}); remove {self._folder}: its "
                "contents are then encoded again"
            ) from error
        return outputs

    def put(self, modality: bytes, fingerprint: str, hashes: Sequence[bytes], outputs: Outputs) -> None:
        """Append outputs; they are on disk when this returns. A hash that has an output keeps it.

        Args:
            modality: IMAGE or TITLE.
            fingerprint: of the tower, in hex.
            hashes: content hashes of 16 bytes [n]; may repeat, or be empty. Of a repeated hash the first counts.
            outputs: float16 [n, width]. Rows that are not finite are left out.
        """
        prefix = bytes.fromhex(fingerprint) + modality
        usable: list[bool] = np.isfinite(outputs).all(axis=1).tolist()  # type: ignore[assignment]

        def work(environment: lmdb.Environment) -> None:
            with environment.begin(write=True) as transaction:
                first = _read_row(transaction.get(prefix), default=0)
                new: dict[bytes, int] = {}
                for row, hash_ in enumerate(hashes):
                    if usable[row] and hash_ not in new and transaction.get(prefix + hash_) is None:
                        new[hash_] = row
                rows = np.ascontiguousarray(outputs[list(new.values())], np.float16)
                self._write_rows(modality, fingerprint, first, rows)
                for number, hash_ in enumerate(new):
                    transaction.put(prefix + hash_, ROW.pack(first + number))
                transaction.put(prefix, ROW.pack(first + len(new)))

        self._environment.run(work)

    def _write_rows(self, modality: bytes, fingerprint: str, first: int, rows: Outputs) -> None:
        """Write rows from number `first` on, and wait until they are on disk."""
        if not len(rows):
            return
        descriptor = os.open(self._file(modality, fingerprint), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            view, offset = memoryview(rows.tobytes()), first * rows.shape[1] * rows.itemsize
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _find_rows(self, modality: bytes, fingerprint: str, hashes: Sequence[bytes | None]) -> NDArray[np.int64]:
        """Return the row of each hash in the file, int64 [n]; -1 for None and for a hash without an output."""
        prefix = bytes.fromhex(fingerprint) + modality

        def work(environment: lmdb.Environment) -> NDArray[np.int64]:
            with environment.begin(buffers=True) as transaction:
                rows = (
                    -1 if hash_ is None else _read_row(transaction.get(prefix + hash_), default=-1) for hash_ in hashes
                )
                return np.fromiter(rows, np.int64, len(hashes))

        return self._environment.run(work)

    def _file(self, modality: bytes, fingerprint: str) -> Path:
        return self._folder / f"{fingerprint}-{modality.decode()}.f16"


@contextmanager
def open_outputs(folder: Path) -> Iterator[OutputStore]:
    """Open the outputs in a folder; create it if it does not exist. They are closed when the context ends.

    Raises:
        CorruptDataError: LMDB or the disk cannot read or write, now or within the context; the disk may be full.
    """
    repair = "remove the folder: its contents are then encoded again"
    try:
        with closing(SharedEnvironment(folder / "index", map_size=INITIAL_MAP_SIZE, repair=repair)) as environment:
            yield OutputStore(folder, environment)
    except lmdb.Error as error:
        raise CorruptDataError(
            f"LMDB of kept tower outputs at {folder}: {error}; check the free disk space, or remove the folder: its "
            "contents are then encoded again"
        ) from error


def _read_row(value: bytes | memoryview | None, *, default: int) -> int:
    return default if value is None else int(ROW.unpack(value)[0])
