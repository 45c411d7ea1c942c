"""The store of a feature_store.yaml is the same whether Feast opens it or we do."""

from pathlib import Path

import pytest
from feast.repo_config import RepoConfig, load_repo_config

from feature_repo import config as settings
from feature_repo.errors import VitrineError
from feature_repo.online.open_store import open_configured_table
from feature_repo.online.table import OnlineTable
from feature_repo.stores.online import RedisOnlineStore
from tests.feature_repo.online.versions import VIEW, write_versions
from tests.servers import RedisServer


def deployment(folder: Path, address: str, life: str) -> Path:
    file = folder / "feature_store.yaml"
    file.write_text(
        f"project: shop\nprovider: local\nregistry: registry.db\noffline_store:\n"
        f"  type: feature_repo.stores.offline.DeltaOfflineStore\n  path: offline\nonline_store:\n"
        f"  type: feature_repo.stores.online.RedisOnlineStore\n  connection_string: {address}\n"
        f"  key_ttl_seconds: {life}\nentity_key_serialization_version: 3\n"
    )
    return file


def lives_for(table: OnlineTable) -> int:
    """Milliseconds until a row that is written now will go."""
    table.store.client.flushall()  # type: ignore[attr-defined]
    view = table.catalog.register_view(VIEW)
    write_versions(table, view, ["a"], [1], [1])
    return table.store.client.pttl(table.make_keys(view, {"product_id": ["a"]}, 1)[0])  # type: ignore[attr-defined]


def test_rows_live_as_long_whoever_opened_the_store(redis: RedisServer, tmp_path: Path) -> None:
    file = deployment(tmp_path, redis.address, "60")
    config: RepoConfig = load_repo_config(tmp_path, file)
    opened = open_configured_table(settings.load(file))
    assert opened is not None
    assert VIEW.ttl_us == 0, "without key_ttl_seconds its rows would stay"
    assert 50_000 < lives_for(RedisOnlineStore().online_table(config)) <= 60_000
    assert 50_000 < lives_for(opened) <= 60_000


def test_a_life_that_is_no_number_of_seconds_is_refused(redis: RedisServer, tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match=r"online_store.key_ttl_seconds is 'a day'; expected a whole number"):
        open_configured_table(settings.load(deployment(tmp_path, redis.address, "a day")))
