from pathlib import Path

import pytest

from feature_repo.config import Settings
from tests.producers.catalogue.shop import opened


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    """A deployment without any tables."""
    return opened(tmp_path)
