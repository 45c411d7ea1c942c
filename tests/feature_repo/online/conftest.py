"""The online stores under test."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests import servers

LMDB = "feature_repo.stores.online.LMDBOnlineStore"
REDIS = "feature_repo.stores.online.RedisOnlineStore"


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RedisServer]:
    """A Redis server that all tests share."""
    with servers.redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[servers.RedisServer]]:
    """A cluster of three nodes that all tests share."""
    with servers.redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(scope="session", params=["lmdb", "redis"])
def online_config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`online_store` of a feature_store.yaml, for each kind of store."""
    if request.param == "lmdb":
        return {"type": LMDB, "path": str(tmp_path_factory.mktemp("online"))}
    return {"type": REDIS, "connection_string": request.getfixturevalue("redis").address}
