"""Small Feast projects on each online store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore

from feature_repo.online import entity_keys
from tests.feature_repo.stores.online import feast_world


@pytest.fixture(scope="module")
def shared_store(online_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with feast_world.project(tmp_path_factory.mktemp("repo"), online_config, project="shared") as opened:
        yield opened


@pytest.fixture
def store(shared_store: FeatureStore) -> FeatureStore:
    """The small project without rows. Tests may add to its definitions, but not change them."""
    table = shared_store._get_provider().online_store.online_table(shared_store.config)
    for view in table.catalog.reload().views:
        table.store.delete_prefix(entity_keys.make_prefix(table.project, view))
    return shared_store


@pytest.fixture
def own_store(online_config: dict[str, Any], tmp_path: Path) -> Iterator[FeatureStore]:
    """A project that a test may change."""
    with feast_world.project(tmp_path / "repo", online_config) as opened:
        yield opened


@pytest.fixture
def url(online_config: dict[str, Any]) -> str:
    """The address of the same store, for `OnlineReader`."""
    return (
        f"lmdb://{online_config['path']}"
        if "path" in online_config
        else f"redis://{online_config['connection_string']}"
    )
