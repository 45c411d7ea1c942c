"""The online stores under test."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore

from feature_repo.online import entity_keys
from tests import servers
from tests.feature_repo.online import feast_world

LMDB = "feature_repo.stores.online.LMDBOnlineStore"
REDIS = "feature_repo.stores.online.RedisOnlineStore"


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RedisServer]:
    """A Redis that all tests share."""
    with servers.redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[servers.RedisServer]]:
    """A cluster of three nodes that all tests share."""
    with servers.redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(scope="session", params=["lmdb", "redis"])
def online_config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`online_store` of a feature_store.yaml, of each store in turn."""
    if request.param == "lmdb":
        return {"type": LMDB, "path": str(tmp_path_factory.mktemp("online"))}
    return {"type": REDIS, "connection_string": request.getfixturevalue("redis").address}


@pytest.fixture(scope="module")
def shared_store(online_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with feast_world.project(tmp_path_factory.mktemp("repo"), online_config, project="shared") as opened:
        yield opened


@pytest.fixture
def store(shared_store: FeatureStore) -> FeatureStore:
    """The small project, its views empty; tests leave its definitions as they are, or add to them."""
    table = shared_store._get_provider().online_store.online_table(shared_store.config)
    for view in table.views.reload().views:
        table.store.drop(entity_keys.prefix(table.project, view))
    return shared_store


@pytest.fixture
def own_store(online_config: dict[str, Any], tmp_path: Path) -> Iterator[FeatureStore]:
    """A project that a test may change."""
    with feast_world.project(tmp_path / "repo", online_config) as opened:
        yield opened


@pytest.fixture
def url(online_config: dict[str, Any]) -> str:
    """The same store, as `OnlineReader` takes it."""
    return (
        f"lmdb://{online_config['path']}"
        if "path" in online_config
        else f"redis://{online_config['connection_string']}"
    )
