"""A server that scores pairs of products of a generated shop."""

from collections.abc import Iterator

import pytest

from consumers.online import OnlineReader
from tests.consumers.pairs.world import PairWorld, make_world
from tests.consumers.serving.conftest import reader, redis_server, served  # noqa: F401 - fixtures
from tests.consumers.serving.running import Served, serving


@pytest.fixture(scope="session")
def pair_world(tmp_path_factory: pytest.TempPathFactory) -> PairWorld:
    return make_world(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def served_pairs(reader: OnlineReader, pair_world: PairWorld) -> Iterator[Served]:  # noqa: F811
    with serving(reader, open_pairs=pair_world.open_executor()) as running:
        yield running
