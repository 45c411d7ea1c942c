"""Several processes that serve, looked after by one that does nothing else.

A process that ends by itself is started again, a second later at the earliest; the others serve meanwhile. Told to
end, all are told; killed itself, all end, for each waits for its parent. They cannot share a port: Arrow Flight's
server forbids it (it sets GRPC_ARG_ALLOW_REUSEPORT to 0), and so each has its own.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

from consumers.serving.ending import Ending
from feature_repo.errors import VitrineError

PAUSE = 1.0
"""Seconds between two starts of the same process, so that one that cannot live does not use up a core."""
STEP = 0.1
"""Seconds between looks at whether all live."""
LONGEST_START = 60.0
LONGEST_END = 20.0

Addresses = dict[str, str]
Serve = Callable[[Callable[[Addresses], None]], None]
"""What one process does, given whom to tell its addresses; it is pickled, and does so in another process."""

_log = logging.getLogger(__name__)


def ports(host: str, first: int, count: int) -> list[int]:
    """`count` ports in a row from `first` on; of 0 any that are free now."""
    if first:
        return list(range(first, first + count))
    with ExitStack() as open_:
        held = [
            open_.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) for _ in range(count)
        ]
        for one in held:
            one.bind((host, 0))
        return [int(one.getsockname()[1]) for one in held]


def supervise(
    serves: Sequence[Serve],
    on_ready: Callable[[list[Addresses]], None],
    ending: Ending,
    on_end: Callable[[int], None] = lambda pid: None,
) -> None:
    """Keep processes serving until told to end.

    Args:
        serves: what each does.
        on_ready: is told the addresses of each, once all serve for the first time.
        ending: tells them to end.
        on_end: is told the system's number of each process that ended by itself.

    Raises:
        VitrineError: a process ended before it served.
    """
    # Not forked: gRPC's threads, and Arrow's, would not be there in the child.
    context = get_context("spawn")
    ready: SimpleQueue[tuple[int, Addresses]] = context.SimpleQueue()
    told = threading.Event()
    ending.by(told.set)
    running: dict[int, SpawnProcess] = {}
    started: dict[int, float] = {}

    def start(number: int) -> None:
        started[number] = time.monotonic()
        running[number] = context.Process(target=_child, args=(serves[number], number, ready), daemon=True)
        running[number].start()

    try:
        for number in range(len(serves)):
            start(number)
        addresses = _all_ready(running, ready, told)
        if addresses is not None:
            on_ready(addresses)
        while not told.wait(STEP):
            while not ready.empty():
                ready.get()  # of those started again
            for number, process in list(running.items()):
                if process.exitcode is not None and time.monotonic() > started[number] + PAUSE:
                    _log.error("serving process %d ended (%d) and is started again", number, process.exitcode)
                    on_end(process.pid or 0)
                    start(number)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join(LONGEST_END)
            process.kill()


def _all_ready(
    running: dict[int, SpawnProcess], ready: "SimpleQueue[tuple[int, Addresses]]", told: threading.Event
) -> list[Addresses] | None:
    """The addresses of each process; None if told to end before."""
    said: dict[int, Addresses] = {}
    until = time.monotonic() + LONGEST_START
    while len(said) < len(running) and not told.wait(0.02):
        silent = sorted(running.keys() - said.keys())
        dead = [number for number in silent if running[number].exitcode is not None]
        if dead or time.monotonic() > until:
            raise VitrineError(f"serving process {(dead or silent)[0]} did not come to serve; it said why above")
        while not ready.empty():
            number, addresses = ready.get()
            said[number] = addresses
    return None if told.is_set() else [said[number] for number in sorted(said)]


def _child(serve: Serve, number: int, ready: "SimpleQueue[tuple[int, Addresses]]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal it comes to all: the parent says when to end
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        serve(lambda addresses: ready.put((number, addresses)))
    except VitrineError as error:
        raise SystemExit(str(error)) from None


def _end_with_parent() -> None:
    parent: Any = parent_process()
    parent.join()
    with suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGTERM)
