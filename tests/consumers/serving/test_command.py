"""`consume serve` as its users run it, and the examples of docs/how-to/serve.md, run against a small shop."""

import concurrent.futures
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
from consumers.serving.shutdown import graceful_shutdown
from feature_repo import console
from feature_repo.views.product import product_embedding
from tests import servers

DOCS = Path(__file__).parents[3] / "docs" / "how-to" / "serve.md"
EXAMPLES = re.findall(r"```(bash|python)\n(.*?)```", DOCS.read_text(), re.S)
IN_THE_SHOP = {"product_embedding__fused_vector": "looks__vector", "p00001": "bear", "u00001": "7"}
"""What the demo's names are in the store of the tests."""


@pytest.fixture(scope="module")
def served(
    reader: OnlineReader, redis_server: servers.RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The addresses of a server in a process of its own, which ends by SIGTERM without complaint."""
    folder = tmp_path_factory.mktemp("deployment")
    store = folder / "feature_store.yaml"
    store.write_text(
        "project: shop\noffline_store:\n  path: tables\nonline_store:\n"
        f"  type: feature_repo.stores.online.RedisOnlineStore\n  connection_string: {redis_server.address}\n"
    )
    line = ["serve", "--store", str(store), "--flight-port", "0", "--http-port", "0", "--access-log", "access.log"]
    line += ["--log-served", "served.log", "--log-served-one-in", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "consumers.cli", *line],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(DOCS.parents[2])},
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    found = re.fullmatch(r"serving flight at (?P<FLIGHT>\S+), http at (?P<HTTP>\S+)\n", said)
    assert found, said
    yield found.groupdict()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert process.stderr.read() == ""
    assert None in served_log.read(folder / "served.log", 1_000)["looks"].rows, "of a product that is not online"
    assert (folder / "access.log").read_text().count('"status": "OK"') >= len(EXAMPLES)


def test_the_examples_ask_for_what_the_demo_has() -> None:
    columns = re.findall(r'rows\["(\w+)"\]', "".join(example for _, example in EXAMPLES))
    assert columns
    assert {*columns} <= {f"{product_embedding.name}__{field.name}" for field in product_embedding.schema}


@pytest.mark.parametrize(("language", "example"), EXAMPLES)
def test_an_example_of_the_documentation_runs(served: dict[str, str], language: str, example: str) -> None:
    for name, ours in IN_THE_SHOP.items():
        example = example.replace(name, ours)
    program = {"bash": [shutil.which("bash"), "-c"], "python": [sys.executable, "-c"]}[language]
    if language == "bash" and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    done = subprocess.run([*map(str, program), example], env=os.environ | served, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(('{"candidates":', "['product_id', 'looks__vector'", "2 1\n"))


def test_it_answers_and_is_ready(served: dict[str, str]) -> None:
    assert httpx.get(f"{served['HTTP']}/readyz").status_code == 200


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(("option", "other"), [("--flight-port", "--http-port"), ("--http-port", "--flight-port")])
def test_a_taken_port_is_one_line_that_names_its_option(
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
    said = capfd.readouterr().err
    assert said.startswith(f"error: cannot listen on 127.0.0.1:{port} (Address already in use)")
    assert f"give another {option}" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("told", "code", "says"), [(signal.SIGTERM, 0, ""), (signal.SIGINT, 130, "interrupted\n")])
@pytest.mark.parametrize(
    "line",
    [
        ["--flight-port", "-1", "--http-port", "0", "--watch", "1h"],
        ["--flight-port", "0", "--http-port", "-1"],
    ],
)
def test_told_to_end_it_answers_what_is_asked_and_leaves_nothing_behind(
    line: list[str],
    told: signal.Signals,
    code: int,
    says: str,
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
        # A shell that runs the tests in the background has them, and all that they start, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process, concurrent.futures.ThreadPoolExecutor() as pool:
        assert process.stderr is not None
        found = re.fullmatch(r"serving (flight|http) at (\S+)\n", process.stderr.readline())
        assert found
        checks = psutil.Process(process.pid).children()
        assert len(checks) == line.count("--watch")
        with FlightClient(found[2], "ranking") if found[1] == "flight" else nullcontext() as client:
            if client is not None:
                client.fetch("7", ["bear"])
            redis_server.client().client_pause(600, all=True)
            fetch = partial(HttpClient(found[2]).fetch, "ranking") if client is None else client.fetch
            asked = pool.submit(fetch, "7", ["bear"])
            time.sleep(0.2)
            process.send_signal(told)
            assert asked.result().candidates.num_rows == 1
        assert (process.wait(20), process.stderr.read()) == (code, says)
        assert not any(check.is_running() for check in checks)


def test_told_to_end_while_it_starts_it_breaks_off_and_puts_away_undisturbed() -> None:
    done = []
    with graceful_shutdown():
        try:
            signal.raise_signal(signal.SIGTERM)
            done.append("begun")
        finally:
            signal.raise_signal(signal.SIGTERM)
            done.append("put away")
    assert done == ["put away"]
