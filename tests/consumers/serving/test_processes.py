"""`consume serve --processes`: all processes answer, one that ends is restarted, and none outlives its parent."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from consumers.online import OnlineReader
from consumers.serving.client import FlightClient
from tests import servers

ROOT = Path(__file__).parents[3]


@contextmanager
def two_processes(folder: Path, redis: servers.RedisServer) -> Iterator[tuple["subprocess.Popen[str]", list[str], str]]:
    """Start two processes for Flight and one for HTTP; yield their parent, the Flight addresses and that of HTTP."""
    store = folder / "feature_store.yaml"
    store.write_text(
        "project: shop\noffline_store:\n  path: tables\nonline_store:\n"
        f"  type: feature_repo.stores.online.RedisOnlineStore\n  connection_string: {redis.address}\n"
    )
    line = ["serve", "--store", str(store), "--processes", "2", "--flight-port", "0", "--http-port", "0"]
    parent = subprocess.Popen(
        [sys.executable, "-m", "consumers.cli", *line, "--access-log", ""],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it for background jobs
    )
    try:
        assert parent.stderr is not None
        line_read = parent.stderr.readline()
        match = re.fullmatch(r"serving flight at (\S+), flight at (\S+), http at (\S+)\n", line_read)
        assert match, line_read + parent.stderr.read()
        yield parent, [match[1], match[2]], match[3]
    finally:
        parent.kill()
        parent.wait()


def send_requests(flight: str, times: int) -> None:
    with FlightClient(flight, "ranking") as client:
        for _ in range(times):
            assert client.fetch("7", ["bear"]).candidates.num_rows == 1


@pytest.mark.slow
def test_processes_answer_restart_after_a_kill_and_end_with_their_parent(
    reader: OnlineReader, redis_server: servers.RedisServer, tmp_path: Path
) -> None:
    with two_processes(tmp_path, redis_server) as (parent, (first, second), http):
        send_requests(first, 3)
        send_requests(second, 4)
        assert count_requests(http) == 7, "the sum of both processes"

        serving = servers_of(parent)
        killed = listener(second, serving)
        os.kill(killed, signal.SIGKILL)
        send_requests(first, 1)
        assert eventually(lambda: len(servers_of(parent) - {killed}) == 3 and listens(second))
        send_requests(second, 2)
        assert count_requests(http) == 10, "the requests of the killed process still count"

        parent.kill()
        assert eventually(lambda: not any(map(listens, (first, second, http)))), (
            "child processes end with a killed parent"
        )


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_all_processes(
    signal_number: signal.Signals, code: int, reader: OnlineReader, redis_server: servers.RedisServer, tmp_path: Path
) -> None:
    with two_processes(tmp_path, redis_server) as (parent, flight, http):
        parent.send_signal(signal_number)
        assert parent.wait(30) == code
        assert not any(map(listens, (*flight, http)))
        assert parent.stderr is not None
        assert parent.stderr.read() == ""


def servers_of(parent: "subprocess.Popen[str]") -> set[int]:
    """Return the process ids of the serving processes."""
    pids = set()
    for child in psutil.Process(parent.pid).children():
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline()):
                pids.add(child.pid)
    return pids


def listener(address: str, among: set[int]) -> int:
    """Return the process that listens on an address."""
    port = int(address.rpartition(":")[2])
    return next(
        pid
        for pid in among
        if any(one.status == "LISTEN" and one.laddr.port == port for one in psutil.Process(pid).net_connections())
    )


def listens(address: str) -> bool:
    """Return whether a process listens on an address."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0


def eventually(condition: Callable[[], bool]) -> bool:
    """Return whether the condition holds within 30 seconds."""
    until = time.monotonic() + 30
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


def count_requests(http: str) -> float:
    """Return the number of requests from /metrics."""
    text = httpx.get(f"{http}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return sum(one.value for one in families["vitrine_serving_requests"].samples if one.name.endswith("_total"))
