"""The servers, each in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests import servers
from tests.benchmarks.serving.deployment import SERVICE


@contextmanager
def run_vitrine_serve(root: Path, *, processes: int = 1) -> Iterator[dict[str, list[str]]]:
    """`consume serve` of the deployment; gives its addresses, by protocol."""
    line = ["serve", "--store", str(root / "ours" / "feature_store.yaml"), "--flight-port", "0", "--http-port", "0"]
    more = ["--processes", str(processes), "--access-log", str(root / "access.log")]
    command = [sys.executable, "-m", "consumers.cli", *line, *more]
    with stop_on_exit(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said.startswith("serving "), said + process.stderr.read()
        addresses: dict[str, list[str]] = {}
        for part in said.strip().removeprefix("serving ").split(", "):
            protocol, address = part.split(" at ")
            addresses.setdefault(protocol, []).append(address)
        yield addresses


@contextmanager
def run_feast_serve(root: Path) -> Iterator[Callable[[str, list[str]], object]]:
    """`feast serve` of the stock deployment; gives what asks it."""
    port = servers.free_port()
    command = ["feast", "-c", str(root / "stock"), "serve", "--port", str(port), "--no-access-log"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with (
        stop_on_exit(subprocess.Popen(command, **quiet, cwd=root / "stock", start_new_session=True), group=True),  # type: ignore[call-overload]
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        for _ in range(600):
            try:
                client.get("/health")
                break
            except httpx.TransportError:
                time.sleep(0.1)

        def ask(user: str, ids: list[str]) -> object:
            asked = {"feature_service": SERVICE, "entities": {"user_id": [user] * len(ids), "product_id": ids}}
            found = client.post("/get-online-features", json=asked | {"full_feature_names": True})
            assert found.status_code == 200, found.text[:500]
            return found.json()

        yield ask


@contextmanager
def stop_on_exit(process: "subprocess.Popen[Any]", *, group: bool = False) -> Iterator["subprocess.Popen[Any]"]:
    """A process for as long as it is needed; with its children, if they are its group."""
    try:
        yield process
    finally:
        if group:
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
