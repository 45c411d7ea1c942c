"""Open LMDB environments: one function for every LMDB file of the repository, and environments that threads share.

LMDB allows one environment per path and process. `get_shared_environment` returns the same one to everybody in the
process. A forked process inherits environments that it must not use: it closes them and opens its own. The file grows
when the memory map is resized, which has to wait until no thread of this process has a transaction open; other
processes learn of it by `lmdb.MapResizedError`. `SharedEnvironment.run` does both, for readers and writers.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import lmdb

from feature_repo.errors import CorruptDataError

Result = TypeVar("Result")

FIRST_MAP_SIZE = 1 << 26
MAX_READERS = 1024
REPAIR_STORE = "remove the folder, run `feast apply` and materialize"
"""What to do with an online store that is truncated."""
_READ_ALL = """
import lmdb, sys
with lmdb.open(sys.argv[1], readonly=True, readahead=False) as environment:
    with environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
        for _, value in cursor:
            bytes(value[-1:])
"""

_shared: dict[Path, "SharedEnvironment"] = {}
_shared_lock = threading.Lock()


def open_environment(folder: Path, *, map_size: int = FIRST_MAP_SIZE, readonly: bool = False) -> lmdb.Environment:
    """Open the LMDB environment in a folder. The caller closes it; a process may have one open for each folder.

    Args:
        folder: created if it does not exist, unless `readonly`.
        map_size: bytes that the file may grow to before the map must be resized; ignored if `readonly`.
        readonly: refuse writes. Other processes may write to the file meanwhile, unless the lock file cannot be
            written, as on a read-only mount: then nobody may.

    Raises:
        lmdb.Error: the file cannot be opened or is no LMDB file; with `readonly` also if it does not exist.
    """
    if readonly:
        open_readonly = partial(
            lmdb.open, str(folder), readonly=True, create=False, readahead=False, max_readers=MAX_READERS
        )
        try:
            return open_readonly()
        except lmdb.Error:  # no permission to write the lock file, or a read-only mount
            return open_readonly(lock=False)
    folder.mkdir(parents=True, exist_ok=True)
    environment = lmdb.open(str(folder), map_size=map_size, max_readers=MAX_READERS, readahead=False, meminit=False)
    environment.reader_check()  # frees the reader slots of killed processes
    return environment


class SharedEnvironment:
    """An open environment that counts its users: its map may only be resized while nobody uses it.

    A file that this process may not write, on a read-only mount for instance, is opened as with `readonly`. Nobody may
    write to such a file meanwhile, elsewhere either: replace it by another one to publish new rows.

    Args:
        folder: the folder of the LMDB file; folder and file are created if they do not exist, unless `readonly`.
        readonly: as for `open_environment`.
        map_size: as for `open_environment`; None takes FIRST_MAP_SIZE.
        repair: what to do if the file is truncated, for the message.

    Raises:
        CorruptDataError: the file is truncated.
        lmdb.Error: the file cannot be opened.
    """

    def __init__(
        self, folder: Path, *, readonly: bool = False, map_size: int | None = None, repair: str = REPAIR_STORE
    ) -> None:
        self._file = folder / "data.mdb"
        self._environment = open_environment(
            folder, map_size=map_size or FIRST_MAP_SIZE, readonly=readonly or _is_readonly(folder)
        )
        _refuse_truncated_file(self._environment, self._file, repair)
        self._inode = self._file.stat().st_ino
        self._user_count = 0
        self._idle = threading.Condition()

    def run(self, work: Callable[[lmdb.Environment], Result]) -> Result:
        """Call `work` as `use` does, again with a resized map if the map was full or another process outgrew it.

        Args:
            work: runs each of its transactions to the end before it returns. It must give the same result if it is
                called again after a transaction that failed.
        """
        while True:
            try:
                return self.use(work)
            except lmdb.MapFullError:
                self.resize(grow=True)
            except lmdb.MapResizedError:
                self.resize(grow=False)

    def use(self, work: Callable[[lmdb.Environment], Result]) -> Result:
        """Call `work` with the environment and return its result. The map keeps its size until `work` returns.

        Waits while another thread resizes, pauses or closes the environment. Exceptions of `work` are raised as they
        are.
        """
        with self._idle:
            self._user_count += 1
        try:
            return work(self._environment)
        finally:
            with self._idle:
                self._user_count -= 1
                self._idle.notify_all()

    def resize(self, *, grow: bool) -> None:
        """Change the size of the memory map, once nobody uses the environment. Must not be called within `use`.

        Args:
            grow: True doubles the size; False takes over the size that another process gave the file.
        """
        self.pause()
        try:
            self._environment.set_mapsize(2 * self._environment.info()["map_size"] if grow else 0)
        finally:
            self.resume()

    def is_current(self) -> bool:
        """Return whether the file at the path is still the one that was opened; False if it was deleted or replaced."""
        try:
            return self._file.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Wait until nobody uses the environment, then close it. It cannot be used afterwards: lmdb.Error is raised."""
        self.pause()
        self._environment.close()
        self.resume()

    def pause(self) -> None:
        """Wait until nobody uses the environment, and make new users wait until the same thread calls `resume`."""
        self._idle.acquire()
        self._idle.wait_for(lambda: not self._user_count)

    def resume(self) -> None:
        """Admit users again. Only the thread that called `pause` may call it."""
        self._idle.release()


def get_shared_environment(
    folder: Path, *, create: bool, readonly: bool = False, repair: str = REPAIR_STORE
) -> SharedEnvironment | None:
    """Return this process's environment of a folder; None if the folder holds no LMDB file and `create` is false.

    Every call with one folder returns the same environment, which the caller must not close. If the file was deleted or
    replaced since it was opened, it is closed and the new file is opened.

    Args:
        folder: a resolved path; two spellings of one folder would open it twice.
        create: create the folder and the file where they are missing.
        readonly: as for `open_environment`; all calls with one folder must agree on it.
        repair: as for `SharedEnvironment`.

    Raises:
        CorruptDataError: the file is truncated.
        lmdb.Error: the file cannot be opened.
    """
    environment = _shared.get(folder)
    if environment is not None and environment.is_current():
        return environment
    with _shared_lock:
        environment = _shared.get(folder)
        if environment is not None and not environment.is_current():
            _shared.pop(folder).close()
            environment = None
        if environment is None:
            if not create and not (folder / "data.mdb").is_file():
                return None
            environment = _shared[folder] = SharedEnvironment(folder, readonly=readonly, repair=repair)
    return environment


@contextmanager
def open_exclusively(folder: Path, *, map_size: int, repair: str) -> Iterator[SharedEnvironment]:
    """Open an environment for writing that others in this process read; it is closed when the context ends.

    The environment that this process shares is closed first and opened again by its next reader, who waits until the
    context has ended.

    Args:
        folder: a resolved path; folder and file are created if they do not exist.
        map_size: bytes that the file may grow to at first.
        repair: as for `SharedEnvironment`.

    Raises:
        CorruptDataError: the file is truncated.
        lmdb.Error: the file cannot be opened.
    """
    with _shared_lock:
        if folder in _shared:
            _shared.pop(folder).close()
        environment = SharedEnvironment(folder, map_size=map_size, repair=repair)
        try:
            yield environment
        finally:
            environment.close()


def _is_readonly(folder: Path) -> bool:
    """Return whether the folder has an LMDB file that this process may not write, or may not lock."""
    file, lock = folder / "data.mdb", folder / "lock.mdb"
    if not file.is_file():
        return False
    return not (os.access(file, os.W_OK) and os.access(lock if lock.exists() else folder, os.W_OK))


def _refuse_truncated_file(environment: lmdb.Environment, file: Path, repair: str) -> None:
    """Raise if pages in use lie past the end of the file: reading them would kill the process (SIGBUS).

    An interrupted copy keeps the first pages, which say how many pages there are. A sound file can be shorter than that
    too: a commit that deletes allocates pages at the end and frees them without writing them. So a file that is short
    by whole pages is read to its end in a child process, which may be killed.

    Raises:
        CorruptDataError: pages in use are not in the file.
    """
    page_size = environment.stat()["psize"]
    expected_size = (environment.info()["last_pgno"] + 1) * page_size
    size = file.stat().st_size
    if size < expected_size and (size % page_size or not _can_read_all(file.parent)):
        raise CorruptDataError(
            f"LMDB at {file.parent}: data.mdb is truncated: it has {size:,} of {expected_size:,} bytes, perhaps "
            f"because a copy was interrupted; copy it again, or {repair}"
        )


def _can_read_all(folder: Path) -> bool:
    """Return whether a child process reads every value without being killed."""
    return subprocess.run([sys.executable, "-c", _READ_ALL, folder], capture_output=True, check=False).returncode == 0


def _before_fork() -> None:
    _shared_lock.acquire()
    for environment in _shared.values():
        environment.pause()


def _after_fork_in_parent() -> None:
    for environment in _shared.values():
        environment.resume()
    _shared_lock.release()


def _after_fork_in_child() -> None:
    for environment in _shared.values():
        environment.resume()
        environment.close()
    _shared.clear()
    _shared_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
