"""A deployment's Feast store, opened where its registry is damaged."""

from pathlib import Path

import pytest

from feature_repo import settings
from feature_repo.errors import VitrineError
from feature_repo.stores.opening import open_feature_store
from tests.features import world


def test_a_registry_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    made = world.deployment(tmp_path)
    (tmp_path / "registry.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(VitrineError, match=r"registry .* does not answer: file is not a database") as said:
        open_feature_store(settings.load(made.file))
    assert "\n" not in str(said.value)
