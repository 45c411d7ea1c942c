"""What all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

# Shared machines stall; how long an example takes says nothing of its correctness.
settings.register_profile("vitrine", deadline=None)
settings.load_profile("vitrine")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP, for whom any encoder will do; it is only read."""
    from tests.producers.encoders import checkpoints

    folder = tmp_path_factory.mktemp("encoders") / "small"
    checkpoints.clip(folder)
    return folder
