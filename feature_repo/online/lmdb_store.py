"""The online store in an LMDB file: embedded, many reading processes, one writer at a time, crash-safe.

`write` returns when the commit is on disk (LMDB's default, synchronous mode). Values are copied inside the read
transaction. The processes of one machine share the file; see feature_repo/files/lmdb_environment.py.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from feature_repo.errors import CorruptDataError, NotFoundError, UnavailableError
from feature_repo.files.lmdb_environment import get_shared_environment
from feature_repo.online.store import DeferredPipeline, Pipeline

Result = TypeVar("Result")

ROWS_PER_COMMIT = 50_000
"""Rows that are written or deleted in one transaction, at most."""
KEYS_PER_STEP = 10_000
"""Keys of one read transaction of a scan. While it is open, writers cannot reuse the pages that it may read."""
_DAMAGED = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError, lmdb.PanicError)
_TIMESTAMPS = struct.Struct("<qq")


class LMDBStore:
    """A `Store` in the folder `path`. Threads may share it; a pickled copy opens the same folder.

    Rows never expire by themselves: `ttl_us` of `write` is ignored. A pickled copy never creates the file. The methods
    that read or write raise the errors below too, for instance if the file is deleted or the disk becomes full.

    Args:
        path: the folder of data.mdb and lock.mdb.
        create: create the folder and the file if they do not exist, also if they are deleted later.

    Raises:
        NotFoundError: there is no LMDB file at `path` and `create` is false.
        CorruptDataError: the file is damaged, truncated, or no LMDB file.
        UnavailableError: LMDB cannot open it, for instance for lack of disk space or permissions.
    """

    is_local = True

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path.resolve()
        self._create = create
        self._run(lambda environment: None)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(LMDBStore, create=False), (self._path,)

    def read(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        """Return the values of each group of keys, in their order; None for a missing key.

        All groups are read in one transaction, so they are of one moment. Repeated keys and empty groups are allowed.
        """

        def work(environment: lmdb.Environment) -> list[list[bytes | None]]:
            with environment.begin() as transaction:
                return [list(map(transaction.get, keys)) for keys in groups]  # faster than a cursor's getmulti

        return self._run(work)

    def pipeline(self) -> AbstractContextManager[Pipeline]:
        """Return a pipeline that reads all queued requests when the first reply is needed."""
        return nullcontext(DeferredPipeline(self.read))

    def write(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl_us: int) -> int:
        """Put packed rows, except where a newer one is stored; return how many were put.

        A row with the same two timestamps as the stored one replaces it. ROWS_PER_COMMIT rows, in the order of their
        keys, are one commit. If a later commit fails, earlier ones stay.

        Args:
            keys: no key may occur twice.
            rows: the packed row of each key.
            ttl_us: ignored.
        """
        order = sorted(range(len(keys)), key=keys.__getitem__)
        written = 0
        for start in range(0, len(order), ROWS_PER_COMMIT):
            pairs = [(keys[i], rows[i]) for i in order[start : start + ROWS_PER_COMMIT]]
            written += self._run(partial(_put_newer, pairs=pairs))
        return written

    async def read_async(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        """Return the values of each group of keys, as `read` does, but read in another thread."""
        return await asyncio.to_thread(self.read, groups)

    async def write_async(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl_us: int) -> int:
        """Put the rows that `write` puts and return how many were put, in another thread.

        Args:
            keys: no key may occur twice; may be empty.
            rows: the packed row of each key.
            ttl_us: ignored.
        """
        return await asyncio.to_thread(self.write, keys, rows, ttl_us)

    def close(self) -> None:
        """Do nothing: other stores of this process may use the same environment."""

    def delete(self, keys: Sequence[bytes]) -> int:
        """Delete keys in one transaction; missing keys are ignored. Return how many were deleted."""

        def work(environment: lmdb.Environment) -> int:
            with environment.begin(write=True) as transaction:
                return sum(transaction.delete(key) for key in keys)

        return self._run(work)

    def list_keys(self, prefix: bytes, predicate: Callable[[bytes], bool]) -> list[bytes]:
        """Return the keys that start with the prefix and for which `predicate` returns true.

        They are in the order of their bytes, and read in one transaction. `predicate` is called with every key that
        starts with the prefix.
        """
        return self._run(partial(_list_keys, prefix=prefix, predicate=predicate))

    def scan_keys(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield the keys that start with the prefix in the order of their bytes, KEYS_PER_STEP at most in each step.

        Each step is a read transaction. No key is yielded twice, and nothing is yielded if there are no such keys.
        """
        start = prefix
        while keys := self._run(partial(_read_step, prefix=prefix, start=start)):
            yield keys
            start = keys[-1] + b"\0"  # the smallest key after the last one

    def delete_prefix(self, prefix: bytes) -> None:
        """Delete every key that starts with the prefix, ROWS_PER_COMMIT keys at most in each transaction.

        If it is interrupted, the keys of earlier transactions are gone.
        """
        while self._run(partial(_delete_some, prefix=prefix)):
            pass

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if there is none."""
        return self.read([[key]])[0][0]

    def compare_and_swap(self, key: bytes, old: bytes | None, new: bytes | None) -> bool:
        """Replace the value `old` of a key by `new`; return false, and change nothing, if the value is not `old`.

        None means no value: as `old`, the key must not exist; as `new`, it is deleted.
        """

        def work(environment: lmdb.Environment) -> bool:
            with environment.begin(write=True) as transaction:
                if transaction.get(key) != old:
                    return False
                if new is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, new)
                return True

        return self._run(work)

    def _run(self, work: Callable[[lmdb.Environment], Result]) -> Result:
        """Call `work` with the environment, again with a resized map if the map was full or outgrown."""
        try:
            environment = get_shared_environment(self._path, create=self._create)
            if environment is None:
                raise NotFoundError(f"no online store at {self._path}; run `feast apply`, then materialize")
            return environment.run(work)
        except _DAMAGED as error:
            raise CorruptDataError(
                f"LMDB at {self._path}: {error}; the file is damaged or is not an LMDB file. Restore a copy, or "
                "remove the folder, run `feast apply` and materialize again"
            ) from error
        except lmdb.Error as error:
            raise UnavailableError(
                f"LMDB at {self._path}: {error}; nothing of this step was written. Check the disk's free space and "
                f"the folder's permissions, then run it again"
            ) from error


def _put_newer(environment: lmdb.Environment, pairs: list[tuple[bytes, bytes]]) -> int:
    """Put the (key, row) pairs, sorted by key, for which no newer row is stored; return how many were put."""
    with environment.begin(write=True, buffers=True) as transaction, transaction.cursor() as cursor:
        stored_heads = {bytes(key): bytes(value[:16]) for key, value in cursor.getmulti([key for key, _ in pairs])}
        if stored_heads:
            pairs = [
                (key, row) for key, row in pairs if key not in stored_heads or not _is_older(row, stored_heads[key])
            ]
        cursor.putmulti(pairs)
    return len(pairs)


def _is_older(row: bytes, stored_head: bytes) -> bool:
    """Return whether a row is older than a stored one, given by its first 16 bytes."""
    return _TIMESTAMPS.unpack_from(row) < _TIMESTAMPS.unpack(stored_head)


def _list_keys(environment: lmdb.Environment, prefix: bytes, predicate: Callable[[bytes], bool]) -> list[bytes]:
    """Return the keys with the prefix that satisfy the predicate, sorted, in one transaction."""
    with environment.begin() as transaction, transaction.cursor() as cursor:
        if not cursor.set_range(prefix):
            return []
        return list(filter(predicate, takewhile(lambda key: key.startswith(prefix), cursor.iternext(values=False))))


def _read_step(environment: lmdb.Environment, prefix: bytes, start: bytes) -> list[bytes]:
    """Return the next KEYS_PER_STEP keys with the prefix, from `start` on."""
    with environment.begin() as transaction, transaction.cursor() as cursor:
        if not cursor.set_range(start):
            return []
        keys = takewhile(lambda key: key.startswith(prefix), cursor.iternext(values=False))
        return list(islice(keys, KEYS_PER_STEP))


def _delete_some(environment: lmdb.Environment, prefix: bytes) -> bool:
    """Delete up to ROWS_PER_COMMIT keys with the prefix; return whether there may be more."""
    with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
        if not cursor.set_range(prefix):
            return False
        for _ in range(ROWS_PER_COMMIT):
            if not cursor.key().startswith(prefix):
                return False
            cursor.delete()
    return True
