"""A small shop in Redis, and a server that reads it."""

from collections.abc import Iterator

import pytest
from feast import FeatureService

from consumers.online import OnlineReader
from tests import servers
from tests.consumers.serving.running import Served, serving
from tests.feature_repo.stores.online import feast_world
from tests.feature_repo.stores.online.feast_world import BEAR, CAR, write

REDIS = "feature_repo.stores.online.RedisOnlineStore"
products = FeatureService(name="products", features=[feast_world.looks])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RedisServer]:
    with servers.redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def reader(redis_server: servers.RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineReader]:
    """A reader of a store with the products bear and car and the user 7."""
    online = {"type": REDIS, "connection_string": redis_server.address}
    objects = [*feast_world.OBJECTS, products]
    with feast_world.project(tmp_path_factory.mktemp("repo"), online, objects) as store:
        write(store, "looks", [BEAR, CAR])
        write(store, "taste", [{"user_id": 7, "interest": [1.0, 2.0], "age": 31.0}])
        write(store, "season", [{"sale": 0.2}])
        with OnlineReader(f"redis://{redis_server.address}", "shop") as reader:
            yield reader


@pytest.fixture(scope="session")
def served(reader: OnlineReader) -> Iterator[Served]:
    with serving(reader) as running:
        yield running
