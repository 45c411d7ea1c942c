"""Packed rows in an LMDB file: embedded, many reading processes, one writing at a time, crash-safe.

LMDB wants one environment per path and process, so all that open a path share one, and a forked process, which
inherits it in a state not to be used, closes it and opens its own. Values are copied out of it within
the read transaction. Its file grows by doubling the map, which must wait for this process's transactions; other
processes notice by themselves. A commit is on disk when `write` returns (LMDB's default, synchronous, mode).
"""

import asyncio
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from feature_repo.errors import VitrineError
from feature_repo.online.conversation import Collected, Conversation
from feature_repo.online.lmdb_whole import refuse_if_cut_off

Answer = TypeVar("Answer")

FIRST_MAP_SIZE = 1 << 26
MAX_READERS = 1024
ROWS_PER_COMMIT = 50_000
KEYS_PER_STEP = 10_000
"""Keys of one read transaction of a scan: a writer's old pages cannot be used again while it is open."""
_DAMAGED = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError, lmdb.PanicError)
_TIMES = struct.Struct("<qq")

_environments: dict[Path, "_Environment"] = {}
_environments_lock = threading.Lock()


class LMDBStore:
    """Bytes by key in the folder `path`, which `create` makes if it is not there, or no longer.

    Raises:
        VitrineError: there is nothing at `path`, or it is no LMDB environment, or one that was cut off.
    """

    on_this_machine = True

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path.resolve()
        self._create = create
        self._within(lambda environment: None)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(LMDBStore, create=False), (self._path,)

    def read(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        def work(environment: lmdb.Environment) -> list[list[bytes | None]]:
            with environment.begin() as transaction:
                return [list(map(transaction.get, keys)) for keys in groups]  # faster than a cursor's getmulti

        return self._within(work)

    def conversation(self) -> AbstractContextManager[Conversation]:
        return nullcontext(Collected(self.read))

    def write(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl: int) -> int:
        order = sorted(range(len(keys)), key=keys.__getitem__)
        written = 0
        for start in range(0, len(order), ROWS_PER_COMMIT):
            part = [(keys[i], rows[i]) for i in order[start : start + ROWS_PER_COMMIT]]
            written += self._within(partial(_put_newer, part=part))
        return written

    async def read_async(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        return await asyncio.to_thread(self.read, groups)

    async def write_async(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl: int) -> int:
        return await asyncio.to_thread(self.write, keys, rows, ttl)

    def close(self) -> None:
        """Nothing: the process's environment stays open for the others who use it."""

    def delete(self, keys: Sequence[bytes]) -> int:
        def work(environment: lmdb.Environment) -> int:
            with environment.begin(write=True) as transaction:
                return sum(transaction.delete(key) for key in keys)

        return self._within(work)

    def keys(self, prefix: bytes, wanted: Callable[[bytes], bool]) -> list[bytes]:
        return self._within(partial(_keys, prefix=prefix, wanted=wanted))

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        start = prefix
        while found := self._within(partial(_step, prefix=prefix, start=start)):
            yield found
            start = found[-1] + b"\0"  # the first key that can follow it

    def drop(self, prefix: bytes) -> None:
        while self._within(partial(_delete_some, prefix=prefix)):
            pass

    def get(self, key: bytes) -> bytes | None:
        return self.read([[key]])[0][0]

    def swap(self, key: bytes, old: bytes | None, new: bytes | None) -> bool:
        def work(environment: lmdb.Environment) -> bool:
            with environment.begin(write=True) as transaction:
                if transaction.get(key) != old:
                    return False
                if new is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, new)
                return True

        return self._within(work)

    def _within(self, work: Callable[[lmdb.Environment], Answer]) -> Answer:
        """Do `work`, with a larger map if this one is full, or is no longer the file's."""
        try:
            environment = _open(self._path, self._create)
            while True:
                try:
                    return environment.use(work)
                except lmdb.MapFullError:
                    environment.resize(grow=True)
                except lmdb.MapResizedError:
                    environment.resize(grow=False)
        except _DAMAGED as error:
            raise VitrineError(
                f"LMDB at {self._path}: {error}; its file is damaged, or no LMDB file. Put back a sound copy, or "
                "remove the folder, run `feast apply` and materialize anew"
            ) from error
        except lmdb.Error as error:
            raise VitrineError(
                f"LMDB at {self._path}: {error}; nothing of this step was written. Check the disk's free space and "
                f"the folder's permissions, then run it again"
            ) from error


class _Environment:
    """An open environment, and who is using it: its map may only be resized while nobody is."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._environment = lmdb.open(
            str(path), map_size=FIRST_MAP_SIZE, max_readers=MAX_READERS, readahead=False, meminit=False
        )
        refuse_if_cut_off(self._environment, path / "data.mdb")
        self._environment.reader_check()  # clears the places of readers that were killed
        self.path = os.fspath(path / "data.mdb")
        self.file = os.stat(self.path).st_ino
        self._users = 0
        self._idle = threading.Condition()

    def use(self, work: Callable[[lmdb.Environment], Answer]) -> Answer:
        """Do `work` while the map stays as it is."""
        with self._idle:
            self._users += 1
        try:
            return work(self._environment)
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()

    def resize(self, *, grow: bool) -> None:
        """Double the map, or take the size that another process gave it."""
        self.pause()
        try:
            self._environment.set_mapsize(2 * self._environment.info()["map_size"] if grow else 0)
        finally:
            self.resume()

    def close(self) -> None:
        """Close it once nobody is using it."""
        self.pause()
        self._environment.close()
        self.resume()

    def pause(self) -> None:
        """Wait until nobody is using it, and let nobody begin."""
        self._idle.acquire()
        self._idle.wait_for(lambda: not self._users)

    def resume(self) -> None:
        self._idle.release()


def _before_fork() -> None:
    _environments_lock.acquire()
    for environment in _environments.values():
        environment.pause()


def _after_fork_in_parent() -> None:
    for environment in _environments.values():
        environment.resume()
    _environments_lock.release()


def _after_fork_in_child() -> None:
    for environment in _environments.values():
        environment.resume()
        environment.close()
    _environments.clear()
    _environments_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _open(path: Path, create: bool) -> _Environment:
    """This process's environment of a path; a new one if the file there is another than before.

    Raises:
        VitrineError: there is no file there, and none is to be created.
    """
    environment = _environments.get(path)
    if environment is None or not _same_file(environment):
        with _environments_lock:
            environment = _environments.get(path)
            if environment is not None and not _same_file(environment):
                _environments.pop(path).close()
                environment = None
            if environment is None:
                if not create and not (path / "data.mdb").is_file():
                    raise VitrineError(f"no online store at {path}; run `feast apply`, then materialize")
                environment = _environments[path] = _Environment(path)
    return environment


def _same_file(environment: _Environment) -> bool:
    try:
        return os.stat(environment.path).st_ino == environment.file
    except FileNotFoundError:
        return False


def _put_newer(environment: lmdb.Environment, part: list[tuple[bytes, bytes]]) -> int:
    """Put the rows that no newer one stands in the way of."""
    with environment.begin(write=True, buffers=True) as transaction, transaction.cursor() as cursor:
        standing = {bytes(key): bytes(value[:16]) for key, value in cursor.getmulti([key for key, _ in part])}
        if standing:
            part = [(key, row) for key, row in part if key not in standing or not _older(row, standing[key])]
        cursor.putmulti(part)
    return len(part)


def _older(row: bytes, standing: bytes) -> bool:
    """Whether a row is older than one that stands, of which the first 16 bytes are given."""
    return _TIMES.unpack_from(row) < _TIMES.unpack(standing)


def _keys(environment: lmdb.Environment, prefix: bytes, wanted: Callable[[bytes], bool]) -> list[bytes]:
    with environment.begin() as transaction, transaction.cursor() as cursor:
        if not cursor.set_range(prefix):
            return []
        return list(filter(wanted, takewhile(lambda key: key.startswith(prefix), cursor.iternext(values=False))))


def _step(environment: lmdb.Environment, prefix: bytes, start: bytes) -> list[bytes]:
    """The next keys that begin so, from `start` on."""
    with environment.begin() as transaction, transaction.cursor() as cursor:
        if not cursor.set_range(start):
            return []
        found = takewhile(lambda key: key.startswith(prefix), cursor.iternext(values=False))
        return list(islice(found, KEYS_PER_STEP))


def _delete_some(environment: lmdb.Environment, prefix: bytes) -> bool:
    """Delete up to a commit's worth of the keys that begin so; whether there may be more."""
    with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
        if not cursor.set_range(prefix):
            return False
        for _ in range(ROWS_PER_COMMIT):
            if not cursor.key().startswith(prefix):
                return False
            cursor.delete()
    return True
