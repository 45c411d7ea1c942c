"""`open_feature_store` with a damaged registry or a configuration that Feast rejects."""

from pathlib import Path

import pytest

from feature_repo import config
from feature_repo.errors import VitrineError
from feature_repo.stores.feature_store import open_feature_store
from tests.feature_repo.features import world


def test_a_registry_that_is_not_a_database_raises_one_line(tmp_path: Path) -> None:
    made = world.deployment(tmp_path)
    (tmp_path / "registry.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(VitrineError, match=r"registry .* does not answer: file is not a database") as said:
        open_feature_store(config.load(made.file))
    assert "\n" not in str(said.value)


REDIS = "feature_repo.stores.online.RedisOnlineStore, connection_string: 'host:6379,password=h0ney'"
DELTA = "feature_repo.stores.offline.DeltaOfflineStore"


@pytest.mark.parametrize("wrong", ["nothing: 1", "redis_type: x", "skip_dedup: true"])
def test_feasts_quotation_of_a_configuration_is_left_out(tmp_path: Path, wrong: str) -> None:
    made = world.deployment(tmp_path)
    online = f"online_store: {{type: {REDIS}, {wrong}}}"
    made.file.write_text(f"project: shop\nprovider: local\noffline_store: {{type: {DELTA}, path: tables}}\n{online}\n")
    with pytest.raises(VitrineError, match=f"Feast refuses it: .*{wrong.split(':')[0]}") as said:
        open_feature_store(config.load(made.file))
    assert "h0ney" not in str(said.value)


@pytest.mark.parametrize("line", ["registry: 5", "provider: nonsense", "online_store: {type: nonsense.Store}"])
def test_a_configuration_that_feast_rejects_raises_one_line(tmp_path: Path, line: str) -> None:
    made = world.deployment(tmp_path)
    made.file.write_text(f"project: shop\noffline_store: {{type: file, path: tables}}\n{line}\n")
    with pytest.raises(VitrineError, match="Feast refuses it") as said:
        open_feature_store(config.load(made.file))
    assert "\n" not in str(said.value)
