"""The servers, each in its own process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests import servers
from tests.benchmarks.serving.deployment import SERVICE


@contextmanager
def run_vitrine_serve(
    root: Path, *, processes: int = 1, token: str | None = None, options: Sequence[str] = ()
) -> Iterator[dict[str, list[str]]]:
    """Run `consume serve`, with a token and further options if they are given, and yield its addresses by protocol."""
    line = ["serve", "--store", str(root / "ours" / "feature_store.yaml"), "--flight-port", "0", "--http-port", "0"]
    more = ["--processes", str(processes), "--access-log", str(root / "access.log"), *options]
    if token is not None:
        (root / "token").write_text(token)
        more += ["--token-file", str(root / "token")]
    command = [sys.executable, "-m", "consumers.cli", *line, *more]
    with stop_on_exit(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) as process:
        assert process.stderr is not None
        line_of_output = process.stderr.readline()
        assert line_of_output.startswith("serving "), line_of_output + process.stderr.read()
        addresses: dict[str, list[str]] = {}
        for part in line_of_output.strip().removeprefix("serving ").split(", "):
            protocol, address = part.split(" at ")
            addresses.setdefault(protocol, []).append(address)
        yield addresses


@contextmanager
def run_feast_serve(root: Path) -> Iterator[Callable[[str, list[str]], object]]:
    """Run `feast serve` on the stock deployment and yield a function that sends a request."""
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

        def fetch(user: str, ids: list[str]) -> object:
            body = {"feature_service": SERVICE, "entities": {"user_id": [user] * len(ids), "product_id": ids}}
            response = client.post("/get-online-features", json=body | {"full_feature_names": True})
            assert response.status_code == 200, response.text[:500]
            return response.json()

        yield fetch


@contextmanager
def stop_on_exit(process: "subprocess.Popen[Any]", *, group: bool = False) -> Iterator["subprocess.Popen[Any]"]:
    """Yield a process and end it afterwards, with its process group if `group` is true."""
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
