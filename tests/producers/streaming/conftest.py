"""Fixtures: a deployment on Redis for streaming."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.producers.streaming import running
from tests.producers.streaming.running import Shop

Applied = tuple[servers.RedisServer, dict[bytes, bytes], Path]


@pytest.fixture(scope="session")
def applied(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Iterator[Applied]:
    """Start a Redis server, and return it with the keys and the registry that `feast apply` writes."""
    folder = tmp_path_factory.mktemp("applied")
    with servers.redis_server(folder / "redis") as server:
        running.make(folder, server, encoder)
        client = server.client()
        yield server, {key: client.get(key) for key in client.scan_iter()}, folder / "registry.db"


@pytest.fixture
def shop(tmp_path: Path, encoder: Path, applied: Applied) -> Shop:
    """Return a deployment without rows."""
    server, keys, registry = applied
    server.client().flushall()
    server.client().mset(keys)
    shutil.copy(registry, tmp_path)
    return Shop(running.deployment(tmp_path, server), server, encoder)
