"""Materializing processes, to be killed and to be measured: forked from a server that has imported everything."""

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
    _give_freed_memory_back()
    store = world.open_store(folder)
    pipe.send("begins")
    with _watched_memory() as megabytes:
        store.materialize_incremental(end, feature_views=["looks"])
    pipe.send(megabytes[0])


def running(
    folder: Path, end: datetime, rows_per_entry: int = 200_000
) -> AbstractContextManager[tuple[BaseProcess, Connection]]:
    """A process that has just begun to materialize `looks`; the pipe gives the most memory that it took, in MB."""
    return begun(context, _run, folder, end, rows_per_entry)


def _give_freed_memory_back() -> None:
    """What allocators keep of what was freed depends on the moment: it would be measured as memory that is needed."""
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt, mmap_threshold, arena_max = ctypes.CDLL(None).mallopt, -3, -8
    mallopt(mmap_threshold, 64 * 1024)
    mallopt(arena_max, 1)


@contextmanager
def _watched_memory() -> Iterator[list[float]]:
    """The most memory that this process has of its own, beyond what it had before: without pages of mapped files."""
    before, most, stop = _own_memory(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            most[0] = max(most[0], _own_memory() - before)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield most
    stop.set()
    watcher.join()


def _own_memory() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no RssAnon in /proc/self/status")
