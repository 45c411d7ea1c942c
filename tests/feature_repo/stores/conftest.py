"""Feast projects that materialize with our engine, on each kind of online store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore

from tests.feature_repo.online.conftest import online_config, redis
from tests.feature_repo.stores import world

__all__ = ["online_config", "redis"]


@pytest.fixture
def store(online_config: dict[str, Any], tmp_path: Path) -> Iterator[FeatureStore]:
    """A project without rows."""
    world.make(tmp_path / "repo", online_config)
    opened = world.open_store(tmp_path / "repo")
    opened.apply(world.OBJECTS)
    yield opened
    opened.teardown()
