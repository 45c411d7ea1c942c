"""Settings and fixtures of all tests."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from feature_repo.location import BucketPath, Location
from tests.servers import AzuriteServer, S3Server

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores: more threads wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

gc.disable()  # until all is imported
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # no test asks a hub of models; read when the library is imported

# Shared machines stall, so the duration of an example says nothing about its correctness.
settings.register_profile("fast", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=100)


LONGEST = ("test_chain.py", "test_stored_deployment.py", "test_reliability.py", "test_embeddings.py")
"""Files that take about a minute each. They come first, so that no worker is left with one at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Try twice as many examples where the slow tests run too. A test that wants others takes a share of them."""
    settings.load_profile("fast" if config.option.markexpr else "thorough")


ONE_WORKER = (
    "tests/consumers/monitoring/",
    "tests/consumers/pages/",
    "tests/consumers/pairs/",
    "tests/consumers/search/",
    "tests/feature_repo/distributed/",
    "tests/producers/streaming/",
    "tests/producers/studio/",
)
"""Folders whose tests share a cluster, a trained encoder or processes."""


def pytest_collection_finish() -> None:
    """Collect garbage rarely, and never scan what was imported: this took a twentieth of the time of the tests."""
    gc.enable()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker whole files, and whole folders whose files share what takes seconds to make."""
    from xdist.scheduler import LoadFileScheduling

    class FolderScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((folder for folder in ONE_WORKER if file.startswith(folder)), file)

    return FolderScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files and folders first; the others keep their order."""
    items.sort(key=lambda item: item.path.name not in LONGEST and not item.nodeid.startswith(ONE_WORKER))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP for tests that accept any encoder. Tests must not change it."""
    from tests.producers.encoders import checkpoints

    folder = tmp_path_factory.mktemp("encoders") / "small"
    checkpoints.clip(folder)
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.kill()


@pytest.fixture
def bucket(s3_server: S3Server) -> BucketPath:
    """A prefix in an empty bucket."""
    return s3_server.make_bucket()


@pytest.fixture(scope="session")
def azurite() -> Iterator[AzuriteServer]:
    server = AzuriteServer()
    yield server
    server.kill()


@pytest.fixture
def container(azurite: AzuriteServer) -> BucketPath:
    """A prefix in an empty container of Azure Blob Storage."""
    return azurite.make_container()


@pytest.fixture(params=["disk", "bucket", "container"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A folder on disk, then one in a bucket of S3 and of Azure: what tables do is the same in all."""
    return tmp_path if request.param == "disk" else request.getfixturevalue(request.param)
