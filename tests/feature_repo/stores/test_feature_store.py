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


@pytest.mark.parametrize("line", ["registry: 5", "provider: nonsense", "online_store: {type: nonsense.Store}"])
def test_a_configuration_that_feast_rejects_raises_one_line(tmp_path: Path, line: str) -> None:
    made = world.deployment(tmp_path)
    made.file.write_text(f"project: shop\noffline_store: {{type: file, path: tables}}\n{line}\n")
    with pytest.raises(VitrineError, match="Feast refuses it") as said:
        open_feature_store(config.load(made.file))
    assert "\n" not in str(said.value)
