"""Feast's registry is found from any working directory."""

import shutil
from pathlib import Path

import pytest
from feast import Entity, FeatureStore

from feature_repo import config
from feature_repo.stores.feature_store import open_feature_store
from feature_repo.stores.registry_path import install, resolve_url
from tests.deployments import ROOT


def test_feasts_own_feature_store_opens_the_shipped_configuration_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "feature_repo"
    repository.mkdir()
    shutil.copy(ROOT / "feature_repo" / "feature_store.yaml", repository)
    monkeypatch.delenv(config.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    FeatureStore(repo_path="feature_repo").apply([Entity(name="shelf", join_keys=["shelf_id"])])
    assert (tmp_path / "data" / "registry.db").is_file(), "`feast apply` may come before any `produce`"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for store in (
        FeatureStore(repo_path=str(repository)),
        open_feature_store(config.load(repository / "feature_store.yaml")),
    ):
        assert [each.name for each in store.list_entities()] == ["shelf"]
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("url", "resolved"),
    [
        ("sqlite:///../data/r.db", "sqlite:///{top}/data/r.db"),
        ("sqlite:///r.db?timeout=5", "sqlite:///{top}/repo/r.db?timeout=5"),
        ("sqlite+pysqlite:///r.db", "sqlite+pysqlite:///{top}/repo/r.db"),
        ("sqlite:////srv/r.db", "sqlite:////srv/r.db"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite:///file:r.db?uri=true", "sqlite:///file:r.db?uri=true"),
        ("postgresql+psycopg://user:p%40ss@host/vitrine", "postgresql+psycopg://user:p%40ss@host/vitrine"),
        ("nonsense", "nonsense"),
    ],
)
def test_only_relative_paths_of_sqlite_files_are_resolved(tmp_path: Path, url: str, resolved: str) -> None:
    assert resolve_url(url, tmp_path / "repo") == resolved.format(top=tmp_path)


def test_installing_twice_resolves_once() -> None:
    from feast.repo_config import RepoConfig

    before = RepoConfig.registry
    install()
    assert RepoConfig.registry is before
