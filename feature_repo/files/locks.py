"""Locks: one run of a step at a time on one store, by a locked file.

The kernel releases the lock when the process ends, however it ends, so a killed run leaves nothing to clean up. The
lock holds between all processes of a machine, and between machines if their file system supports such locks (NFS 4).
Without them, and between machines whose tables are in a bucket, two runs at once lose nothing: the commits of
catalogue, embeddings, stream and quarantine check whether another run was first (`delta.append_if_version`), and of
rows that the other steps write twice the one created last counts.

The lock is POSIX's `lockf`, which child processes do not inherit. The library `filelock` takes `flock`, which a forked
child inherits and holds on to after a killed parent, unless the child was forked by Python.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from feature_repo.config import Settings
from feature_repo.errors import ConflictError

FOLDER = ".locks"
"""Folder of the lock files, beside the Delta tables."""
TIMEOUT_SECONDS = 1.0
"""How long to wait for a lock: `is_locked` takes a free lock for a moment."""

_held: set[Path] = set()
"""Files that this process has locked. It must not open them again: closing any of them would release the lock."""


@contextmanager
def hold_lock(settings: Settings, step: str) -> Iterator[None]:
    """Hold the lock of a step while the block runs.

    The lock file is `.locks/STEP` in the folder of the Delta tables, `/` in the name replaced by `-`. It stays
    afterwards.

    Args:
        settings: the deployment; each has its own locks.
        step: name of the step.

    Raises:
        ConflictError: another run of the step holds the lock: one in this process, or one in another process that did
            not release it within TIMEOUT_SECONDS.
    """
    file = _lock_file(settings, step)
    if file in _held:
        raise _busy(settings, step)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise _busy(settings, step)
            time.sleep(0.05)
        _held.add(file)
        try:
            yield
        finally:
            _held.remove(file)


def is_locked(settings: Settings, step: str) -> bool:
    """Return whether a process, this one or another, holds the lock of the step now. Does not wait for it.

    Args:
        settings: the deployment.
        step: name of the step; False for one that never ran.
    """
    file = _lock_file(settings, step)
    if file in _held or not file.exists():
        return file in _held
    with file.open("a+") as lock:
        return not _try_lock(lock)


def _busy(settings: Settings, step: str) -> ConflictError:
    return ConflictError(
        f"another `produce {step}` is running on {settings.offline}; wait until it ends, or end it: `produce runs` "
        "shows its process"
    )


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _lock_file(settings: Settings, step: str) -> Path:
    return settings.local / FOLDER / step.replace("/", "-")
