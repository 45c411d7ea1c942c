"""A shop with a studio that captions its products and other pictures."""

from collections.abc import Iterator

import pytest

from tests.producers.studio.world import RunningStudio, StudioWorld, make_options, make_world, serving_studio


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> StudioWorld:
    return make_world(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="package")
def studio(world: StudioWorld) -> Iterator[RunningStudio]:
    with serving_studio(make_options(world)) as running:
        yield running
