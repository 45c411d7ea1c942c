"""Several serving processes, started and restarted by one parent process that does nothing else.

HTTP and Flight never share a process: gRPC bounds neither the number of connections nor what they hold before the token
is read, so its callers can use up the file descriptors of its process, but not those of HTTP.

A process that ends by itself is restarted, at most once a second, while the others keep serving. At the shutdown the
parent ends all processes. If the parent is killed, each process ends too, because it waits for its parent. The
processes cannot share a port, because Arrow Flight's server sets GRPC_ARG_ALLOW_REUSEPORT to 0. So each has its own.
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

from feature_repo.errors import UnavailableError, VitrineError
from feature_repo.server.shutdown import Shutdown

RESTART_SECONDS = 1.0
"""Shortest time between two starts of a process, so that one that fails at once does not occupy a core."""
POLL_SECONDS = 0.1
"""Time between two looks at the processes."""
START_TIMEOUT_SECONDS = 60.0
"""Time in which all processes must serve after the start."""
STOP_TIMEOUT_SECONDS = 20.0
"""After this time a process that has not ended is killed."""

Addresses = dict[str, str]
"""Addresses of one process by protocol, "flight" and "http", such as grpc://127.0.0.1:8815."""
Report = tuple[int, Addresses | VitrineError]
"""What a process reports once: its number, and its addresses or the reason why it does not serve."""
Serve = Callable[[Callable[[Addresses], None]], None]
"""The work of one process. It calls its argument with its addresses. It is pickled and runs in another process."""

_log = logging.getLogger(__name__)


def choose_ports(host: str, first: int, count: int) -> list[int]:
    """Return ports for `count` servers, all different, in the order of the servers.

    Args:
        host: the address to listen on.
        first: the first of `count` consecutive ports, which are not checked (`check_ports_free` does that). 0 takes any
            ports that are free now; they are not reserved, so another program can still take them.
        count: how many ports.
    """
    if first:
        return list(range(first, first + count))
    with ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        probes = [stack.enter_context(socket.socket(family)) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def check_ports_free(host: str, *, flight: Sequence[int], http: int) -> None:
    """Check that a server can listen on each port, before anything else is opened. No port stays open.

    Args:
        host: the address to listen on.
        flight: ports of Flight; 0 and -1 are skipped.
        http: port of HTTP; 0 and -1 are skipped.

    Raises:
        UnavailableError: a port is taken, or the host is not an address of this machine. The message names the option
            to change.
    """
    options = dict.fromkeys(flight, "--flight-port") | {http: "--http-port"}
    for port in options.keys() - {0, -1}:
        try:
            for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                with socket.socket(family, kind, protocol) as probe:
                    # As servers do: the port of a server that has just ended is free.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(address)
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {host}:{port} ({error.strerror}); if another server uses the port, give another "
                f"{options[port]}, or -1 to serve without that protocol"
            ) from error


def supervise(
    serves: Sequence[Serve],
    on_ready: Callable[[list[Addresses]], None],
    shutdown: Shutdown,
    on_exit: Callable[[int], None] = lambda pid: None,
) -> None:
    """Run one process for each of `serves` until the shutdown, then end them all.

    Once all have served, a process that ends by itself is started again each time, whatever its exit code.

    Args:
        serves: the work of each process.
        on_ready: called once, when all processes serve, with their addresses in the order of `serves`. Not called if
            the shutdown comes first, nor for a process that is restarted.
        shutdown: from `graceful_shutdown`.
        on_exit: called with the process id of each process that ends by itself, before it is restarted.

    Raises:
        VitrineError: what a process raised before it served.
        UnavailableError: a process ended otherwise, or START_TIMEOUT_SECONDS passed, before it served.
    """
    # Not forked, because gRPC's and Arrow's threads would not exist in the child.
    context = get_context("spawn")
    ready: SimpleQueue[Report] = context.SimpleQueue()
    stop = threading.Event()
    shutdown.on_signal(stop.set)
    running: dict[int, SpawnProcess] = {}
    started: dict[int, float] = {}

    def start(number: int) -> None:
        started[number] = time.monotonic()
        running[number] = context.Process(target=_run_child, args=(serves[number], number, ready), daemon=True)
        running[number].start()

    try:
        for number in range(len(serves)):
            start(number)
        addresses = _wait_until_ready(running, ready, stop)
        if addresses is not None:
            on_ready(addresses)
        while not stop.wait(POLL_SECONDS):
            while not ready.empty():
                number, report = ready.get()
                if isinstance(report, VitrineError):  # not the addresses of a restarted process, which are the same
                    _log.error("serving process %d does not serve: %s", number, report)
            for number, process in list(running.items()):
                if process.exitcode is not None and time.monotonic() > started[number] + RESTART_SECONDS:
                    _log.error("serving process %d ended with exit code %d; restarting it", number, process.exitcode)
                    on_exit(process.pid or 0)
                    start(number)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join(STOP_TIMEOUT_SECONDS)
            process.kill()


def _wait_until_ready(
    running: dict[int, SpawnProcess], ready: "SimpleQueue[Report]", stop: threading.Event
) -> list[Addresses] | None:
    """Return the addresses of each process; None if the shutdown comes first."""
    received: dict[int, Addresses] = {}
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while len(received) < len(running) and not stop.wait(0.02):
        missing = sorted(running.keys() - received.keys())
        ended = [number for number in missing if running[number].exitcode is not None]
        while not ready.empty():
            number, report = ready.get()
            if isinstance(report, VitrineError):
                raise report
            received[number] = report
        if {*ended} - received.keys() or time.monotonic() > deadline:
            raise UnavailableError(f"serving process {(ended or missing)[0]} did not start; its error is above")
    return None if stop.is_set() else [received[number] for number in sorted(received)]


def _run_child(serve: Serve, number: int, ready: "SimpleQueue[Report]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent ends the children
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        serve(lambda addresses: ready.put((number, addresses)))
    except VitrineError as error:
        ready.put((number, error))
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    parent: Any = parent_process()
    parent.join()
    with suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGTERM)
