from pathlib import Path

import pytest

from feature_repo.config import Settings
from tests.producers.catalogue.shop import open_deployment


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    """A deployment without tables."""
    return open_deployment(tmp_path)
