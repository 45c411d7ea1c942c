"""Processes that materialize, to be killed or measured; forked from a server that has imported everything."""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa

from feature_repo.online import materialize
from tests.feature_repo.stores import world
from tests.processes import begun

context = get_context("forkserver")
context.set_forkserver_preload(["tests.feature_repo.stores.runs"])


def _run(pipe: Connection, folder: Path, end: datetime, rows_per_entry: int) -> None:
    materialize.ROWS_PER_ENTRY = rows_per_entry
    materialize.BLOCK_ROWS = min(materialize.BLOCK_ROWS, rows_per_entry)
    _return_freed_memory()
    store = world.open_store(folder)
    pipe.send("begins")
    with _watch_memory() as megabytes:
        store.materialize_incremental(end, feature_views=["looks"])
    pipe.send(megabytes[0])


def start_run(
    folder: Path, end: datetime, rows_per_entry: int = 200_000
) -> AbstractContextManager[tuple[BaseProcess, Connection]]:
    """Start a process that materializes `looks`. At its end the pipe receives its peak memory in MB."""
    return begun(context, _run, folder, end, rows_per_entry)


def _return_freed_memory() -> None:
    """Make allocators return freed memory at once, so that it is not measured as needed."""
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt, mmap_threshold, arena_max = ctypes.CDLL(None).mallopt, -3, -8
    mallopt(mmap_threshold, 64 * 1024)
    mallopt(arena_max, 1)


@contextmanager
def _watch_memory() -> Iterator[list[float]]:
    """Yield the peak of this process's own memory beyond that at the start, in MB, without mapped files."""
    before, peak, stop = _read_own_memory(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], _read_own_memory() - before)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield peak
    stop.set()
    watcher.join()


def _read_own_memory() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no RssAnon in /proc/self/status")
