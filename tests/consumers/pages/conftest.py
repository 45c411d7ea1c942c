"""A deployment with pages, and a server of them without a token."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.consumers.pages.world import PageWorld, serving_pages
from tests.consumers.search.conftest import towers as towers
from tests.deployments import configure, unpack


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory, towers: Path) -> PageWorld:
    folder = tmp_path_factory.mktemp("pages")
    unpack(folder)
    made = PageWorld(configure(folder), towers)
    made.write()
    return made


@pytest.fixture(scope="package")
def url(world: PageWorld) -> Iterator[str]:
    with serving_pages(world) as address:
        yield address
