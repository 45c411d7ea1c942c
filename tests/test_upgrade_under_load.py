"""No request fails and no answer mixes encoder versions while an encoder is upgraded, rolled back and retired."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_repo.config import Settings
from producers.upgrade import machine
from tests import servers
from tests.deployments import clean_environment
from tests.feature_repo.features import world
from tests.feature_repo.features.world import RANKED
from tests.producers.upgrade import shop
from tests.producers.upgrade.shop import NEW, OLD, Steps

CLIENTS = 2
REFRESH_SECONDS = 0.05
PRODUCTS = [product for i, product in enumerate(world.small_shop().products) if i % 9]
"""Those that have a vector."""


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """A server in a process of its own, by its HTTP address."""
    line = f"serve --store {settings.file} --flight-port -1 --http-port 0 --refresh {REFRESH_SECONDS}"
    line += " --deadline 30 --access-log"  # on a busy machine an answer may take longer than the usual second
    command = [sys.executable, "-m", "consumers.cli", *line.split(), ""]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=clean_environment())
    assert process.stderr is not None
    try:
        first_line = process.stderr.readline()
        match = re.search(r"http at (\S+)", first_line)
        assert match, first_line + process.stderr.read()
        yield match[1]
    finally:
        process.terminate()
        assert process.wait(30) == 0


class Client(threading.Thread):
    """Asks for a user and all products until it is stopped; notes what was not right, and each version it got."""

    def __init__(self, address: str, products: list[str] = PRODUCTS) -> None:
        super().__init__()
        self.stopped = threading.Event()
        self.failures: list[str] = []
        self.versions: list[str] = []
        self._address = address
        self._products = products

    def run(self) -> None:
        body = {"service": "ranking_with_affinity", "user_id": "u3", "product_ids": self._products}
        limits = httpx.Limits(keepalive_expiry=2.0)  # the server closes a connection that is idle for five seconds
        with httpx.Client(base_url=self._address, timeout=60, limits=limits) as client:
            while not self.stopped.is_set():
                try:
                    answer = self.ask(client, body)
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    continue
                content = answer.json()
                versions = find_versions(content)
                answered = content["candidates"]["product_embedding__encoder_version"]
                if len(versions) != 1 or len(answered) != len(self._products):
                    self.failures.append(f"versions {versions}")
                self.versions += versions

    def ask(self, client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
        """Send a request and return the answer."""
        return client.post("/v1/features", json=body)


def find_versions(answer: Any) -> set[str]:
    """Every value of a feature `encoder_version` in an answer; a missing one too, as a text."""
    if isinstance(answer, dict):
        found: set[str] = set()
        for name, value in answer.items():
            if name.endswith("product_embedding__encoder_version"):
                found |= {str(one) for one in value}
            elif name.endswith("encoder_version"):
                found |= {one for one in (value if isinstance(value, list) else [value]) if one is not None}
            else:
                found |= find_versions(value)
        return found
    return set().union(*map(find_versions, answer)) if isinstance(answer, list) else set()


def wait_for(clients: list[Client], version: str) -> None:
    """Wait until every client gets a version; then until it has asked twice more."""
    deadline = time.monotonic() + 120
    for client in clients:
        while not client.versions or client.versions[-1] != version:
            assert time.monotonic() < deadline, (client.failures[:1], client.versions[-1:])
            time.sleep(0.01)
    counts = [len(client.versions) for client in clients]
    while any(len(client.versions) < count + 2 for client, count in zip(clients, counts, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(params=["lmdb", pytest.param("redis", marks=pytest.mark.slow)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "lmdb":
        yield shop.make(tmp_path / "shop")
        return
    with servers.redis_server(tmp_path / "redis") as server:
        yield shop.make(tmp_path / "shop", server.address)


def test_an_upgrade_under_load_fails_no_request_and_mixes_no_answer(settings: Settings, tmp_path: Path) -> None:
    steps = Steps(settings)
    with serving(settings) as address:
        clients = [Client(address) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            wait_for(clients, OLD)
            shop.start(settings)
            shop.advance(settings, steps)
            gate = shop.write_gate(tmp_path / "gate.json")
            shop.advance(settings, steps, gate)
            shop.advance(settings, steps)
            wait_for(clients, NEW)
            shop.rollback(settings, steps)
            wait_for(clients, OLD)
            shop.start(settings)
            shop.advance(settings, steps)
            shop.advance(settings, steps, gate)
            shop.advance(settings, steps)
            wait_for(clients, NEW)
            machine.retire(settings, clock=lambda: RANKED + timedelta(hours=1))
            wait_for(clients, NEW)
        finally:
            for client in clients:
                client.stopped.set()
            for client in clients:
                client.join(60)
    assert [client.failures for client in clients] == [[]] * CLIENTS
    for client in clients:
        assert [version for version, _ in groupby(client.versions)] == [OLD, NEW, OLD, NEW]
