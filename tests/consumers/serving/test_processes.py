"""`consume serve --processes`: all answer, one that dies is started again, none outlives its parent."""

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
def several(folder: Path, redis: servers.RedisServer) -> Iterator[tuple["subprocess.Popen[str]", list[str], str]]:
    """Two processes; gives their parent, and the addresses of Flight and HTTP."""
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
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # else ignored by who was started with `&`
    )
    try:
        assert parent.stderr is not None
        said = parent.stderr.readline()
        found = re.fullmatch(r"serving flight at (\S+), http at (\S+), flight at (\S+)\n", said)
        assert found, said + parent.stderr.read()
        yield parent, [found[1], found[3]], found[2]
    finally:
        parent.kill()
        parent.wait()


def ask(flight: str, times: int) -> None:
    with FlightClient(flight, "ranking") as client:
        for _ in range(times):
            assert client.fetch("7", ["bear"]).candidates.num_rows == 1


@pytest.mark.slow
def test_each_answers_a_killed_one_is_started_again_and_none_outlives_the_parent(
    reader: OnlineReader, redis_server: servers.RedisServer, tmp_path: Path
) -> None:
    with several(tmp_path, redis_server) as (parent, (first, second), http):
        ask(first, 3)
        ask(second, 4)
        assert answered(http) == 7, "of both processes"

        serving = servers_of(parent)
        killed = listener(second, serving)
        os.kill(killed, signal.SIGKILL)
        ask(first, 1)
        assert becomes(lambda: len(servers_of(parent) - {killed}) == 2 and listens(second))
        ask(second, 2)
        assert answered(http) == 10, "what the dead one had answered is not forgotten"

        parent.kill()
        assert becomes(lambda: not any(map(listens, (first, second, http)))), "the children of a killed parent end"


@pytest.mark.slow
@pytest.mark.parametrize(("told", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_all_end_when_told_to(
    told: signal.Signals, code: int, reader: OnlineReader, redis_server: servers.RedisServer, tmp_path: Path
) -> None:
    with several(tmp_path, redis_server) as (parent, flight, http):
        parent.send_signal(told)
        assert parent.wait(30) == code
        assert not any(map(listens, (*flight, http)))
        assert parent.stderr is not None
        assert parent.stderr.read() == ""


def servers_of(parent: "subprocess.Popen[str]") -> set[int]:
    """The serving processes, by the system's numbers."""
    found = set()
    for child in psutil.Process(parent.pid).children():
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def listener(address: str, among: set[int]) -> int:
    """Which of the processes listens at an address."""
    port = int(address.rpartition(":")[2])
    return next(
        pid
        for pid in among
        if any(one.status == "LISTEN" and one.laddr.port == port for one in psutil.Process(pid).net_connections())
    )


def listens(address: str) -> bool:
    """Whether anybody listens at an address."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0


def becomes(said: Callable[[], bool]) -> bool:
    """Whether it is so within a while."""
    until = time.monotonic() + 30
    while not said() and time.monotonic() < until:
        time.sleep(0.05)
    return said()


def answered(http: str) -> float:
    """Requests, as /metrics says."""
    text = httpx.get(f"{http}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return sum(one.value for one in families["vitrine_serving_requests"].samples if one.name.endswith("_total"))
