"""`consume serve` as its users run it, and the examples of docs/how-to/serve.md, run against a small shop."""

import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from consumers import cli
from consumers.monitoring.consistency import served_log
from consumers.online import OnlineReader
from consumers.serving.client import FlightClient, HttpClient
from feature_repo import console
from feature_repo.server.shutdown import graceful_shutdown
from feature_repo.views.product import product_embedding
from tests import servers

DOCS = Path(__file__).parents[3] / "docs" / "how-to" / "serve.md"
EXAMPLES = re.findall(r"```(bash|python)\n(.*?)```", DOCS.read_text(), re.S)
TEST_NAMES = {"product_embedding__fused_vector": "looks__vector", "p00001": "bear", "u00001": "7"}
"""Names in the examples, and the names in the test store that replace them."""


@pytest.fixture(scope="module")
def served(
    reader: OnlineReader, redis_server: servers.RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The addresses of a server in a process of its own. SIGTERM must end it without an error message."""
    folder = tmp_path_factory.mktemp("deployment")
    store = folder / "feature_store.yaml"
    store.write_text(
        "project: shop\noffline_store:\n  path: tables\nonline_store:\n"
        f"  type: feature_repo.stores.online.RedisOnlineStore\n  connection_string: {redis_server.address}\n"
    )
    line = ["serve", "--store", str(store), "--flight-port", "0", "--http-port", "0", "--access-log", "access.log"]
    line += ["--log-served", "served.log", "--log-served-one-in", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "consumers.cli", "--log-format", "json", *line],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(DOCS.parents[2])},
    )
    assert process.stderr is not None
    line_read = process.stderr.readline()
    match = re.fullmatch(r"serving flight at (?P<FLIGHT>\S+), http at (?P<HTTP>\S+)", json.loads(line_read)["message"])
    assert match, line_read
    yield match.groupdict()
    with socket.create_connection(("127.0.0.1", httpx.URL(match["HTTP"]).port or 0)) as connection:
        connection.sendall(b"this is not HTTP\r\n\r\n")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 400 ")
    time.sleep(0.5)  # the log is written a moment later
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    records = [json.loads(line) for line in process.stderr.read().splitlines()]
    assert [record["logger"] for record in records] == ["feature_repo.server.http_server"]
    assert "refused: 1 malformed; " in records[0]["message"]
    assert None in served_log.read(folder / "served.log", 1_000)["looks"].rows, (
        "a product that is not online is logged too"
    )
    assert (folder / "access.log").read_text().count('"status": "OK"') >= len(EXAMPLES)


def test_the_examples_use_columns_of_the_demo() -> None:
    columns = re.findall(r'rows\["(\w+)"\]', "".join(example for _, example in EXAMPLES))
    assert columns
    assert {*columns} <= {f"{product_embedding.name}__{field.name}" for field in product_embedding.schema}


@pytest.mark.parametrize(("language", "example"), EXAMPLES)
def test_an_example_of_the_documentation_runs(served: dict[str, str], language: str, example: str) -> None:
    for name, test_name in TEST_NAMES.items():
        example = example.replace(name, test_name)
    program = {"bash": [shutil.which("bash"), "-c"], "python": [sys.executable, "-c"]}[language]
    if language == "bash" and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    done = subprocess.run([*map(str, program), example], env=os.environ | served, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(('{"candidates":', "['product_id', 'looks__vector'", "2 1\n"))


def test_the_server_is_ready(served: dict[str, str]) -> None:
    assert httpx.get(f"{served['HTTP']}/readyz").status_code == 200


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(("option", "other"), [("--flight-port", "--http-port"), ("--http-port", "--flight-port")])
def test_a_taken_port_is_a_one_line_error_that_names_its_option(
    option: str,
    other: str,
    processes: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "feature_store.yaml"
    store.write_text("project: shop\noffline_store:\n  path: tables\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = ["consume", "serve", "--store", str(store), option, str(port), other, "0", "--processes", processes]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            console.run_command_line(cli.app)
    assert ended.value.code == 1
    message = capfd.readouterr().err
    assert message.startswith(f"error: cannot listen on 127.0.0.1:{port} (Address already in use)")
    assert f"give another {option}" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("signal_number", "code", "message"), [(signal.SIGTERM, 0, ""), (signal.SIGINT, 130, "interrupted\n")]
)
@pytest.mark.parametrize(
    "line",
    [
        ["--flight-port", "-1", "--http-port", "0", "--watch", "1h"],
        ["--flight-port", "0", "--http-port", "-1"],
    ],
)
def test_a_signal_ends_the_server_after_the_requests_in_progress(
    line: list[str],
    signal_number: signal.Signals,
    code: int,
    message: str,
    reader: OnlineReader,
    redis_server: servers.RedisServer,
    tmp_path: Path,
) -> None:
    store = tmp_path / "feature_store.yaml"
    store.write_text(
        "project: shop\noffline_store:\n  path: tables\nonline_store:\n"
        f"  type: feature_repo.stores.online.RedisOnlineStore\n  connection_string: {redis_server.address}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "consumers", "serve", "--store", str(store), "--access-log", "", *line],
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes them and their children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process, concurrent.futures.ThreadPoolExecutor() as pool:
        assert process.stderr is not None
        match = re.fullmatch(r"serving (flight|http) at (\S+)\n", process.stderr.readline())
        assert match
        checks = psutil.Process(process.pid).children()
        assert len(checks) == line.count("--watch")
        with FlightClient(match[2], "ranking") if match[1] == "flight" else nullcontext() as client:
            if client is not None:
                client.fetch("7", ["bear"])
            redis_server.client().client_pause(600, all=True)
            fetch = partial(HttpClient(match[2]).fetch, "ranking") if client is None else client.fetch
            response = pool.submit(fetch, "7", ["bear"])
            time.sleep(0.2)
            process.send_signal(signal_number)
            assert response.result().candidates.num_rows == 1
        assert (process.wait(20), process.stderr.read()) == (code, message)
        assert not any(check.is_running() for check in checks)


def test_a_signal_during_the_start_aborts_it_and_later_signals_do_not_disturb_the_cleanup() -> None:
    done = []
    with graceful_shutdown():
        try:
            signal.raise_signal(signal.SIGTERM)
            done.append("started")
        finally:
            signal.raise_signal(signal.SIGTERM)
            done.append("cleaned up")
    assert done == ["cleaned up"]
