"""`open_configured_table` opens the same store as Feast does."""

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


def write_settings(folder: Path, address: str, ttl: str) -> Path:
    file = folder / "feature_store.yaml"
    file.write_text(
        f"project: shop\nprovider: local\nregistry: registry.db\noffline_store:\n"
        f"  type: feature_repo.stores.offline.DeltaOfflineStore\n  path: offline\nonline_store:\n"
        f"  type: feature_repo.stores.online.RedisOnlineStore\n  connection_string: {address}\n"
        f"  key_ttl_seconds: {ttl}\nentity_key_serialization_version: 3\n"
    )
    return file


def measure_ttl(table: OnlineTable) -> int:
    """Return the milliseconds after which a row that is written now expires."""
    table.store.client.flushall()  # type: ignore[attr-defined]
    view = table.catalog.register_view(VIEW)
    write_versions(table, view, ["a"], [1], [1])
    return table.store.client.pttl(table.make_keys(view, {"product_id": ["a"]}, 1)[0])  # type: ignore[attr-defined]


def test_rows_expire_alike_when_feast_table_the_store(redis: RedisServer, tmp_path: Path) -> None:
    file = write_settings(tmp_path, redis.address, "60")
    config: RepoConfig = load_repo_config(tmp_path, file)
    table = open_configured_table(settings.load(file))
    assert table is not None
    assert VIEW.ttl_us == 0, "without key_ttl_seconds its rows never expire"
    assert 50_000 < measure_ttl(RedisOnlineStore().online_table(config)) <= 60_000
    assert 50_000 < measure_ttl(table) <= 60_000


def test_a_ttl_that_is_not_a_number_is_refused(redis: RedisServer, tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match=r"online_store.key_ttl_seconds is 'a day'; expected a whole number"):
        open_configured_table(settings.load(write_settings(tmp_path, redis.address, "a day")))
