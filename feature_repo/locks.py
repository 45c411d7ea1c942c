"""One run of a step at a time on one store: a file that the running process holds locked.

The kernel lets go of the lock when the process ends, however it ends, so a killed run leaves nothing to clear away.
Such locks hold between all processes of a machine, and between machines on a file system that carries them (NFS 4).
Where it does not, two runs at once still do no harm: each commit looks whether another run of its step has been
quicker (delta.append_in_turn).
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from feature_repo.config import Settings
from feature_repo.errors import VitrineError

FOLDER = ".locks"
PATIENCE = 1.0
"""Seconds for which a step is asked for: `held` takes the lock for a moment to see whether it is free."""

_ours: set[Path] = set()
"""Files that this process holds. It must not open them again: its lock is gone as soon as it closes any of them."""


@contextmanager
def hold_lock(settings: Settings, step: str) -> Iterator[None]:
    """Hold the lock of a step.

    Raises:
        VitrineError: another process holds it; the message says which.
    """
    file = _file(settings, step)
    if file in _ours:
        raise _busy(settings, step)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        patient_until = time.monotonic() + PATIENCE
        while not _take(lock):
            if time.monotonic() > patient_until:
                raise _busy(settings, step)
            time.sleep(0.05)
        _ours.add(file)
        try:
            yield
        finally:
            _ours.remove(file)


def is_locked(settings: Settings, step: str) -> bool:
    """Whether a process is running this step now."""
    file = _file(settings, step)
    if file in _ours or not file.exists():
        return file in _ours
    with file.open("a+") as lock:
        return not _take(lock)


def _busy(settings: Settings, step: str) -> VitrineError:
    return VitrineError(
        f"another `produce {step}` is at work on {settings.offline}; wait until it has ended, or end it: "
        "`produce runs` names its process"
    )


def _take(lock: IO[str]) -> bool:
    # POSIX's lock and not flock's: that one is shared with forked children, and held on by orphans of a killed run.
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _file(settings: Settings, step: str) -> Path:
    return settings.offline / FOLDER / step.replace("/", "-")
