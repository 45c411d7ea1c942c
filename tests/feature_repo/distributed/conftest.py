"""A local Ray cluster with two processors for all tests of this folder."""

import os
from collections.abc import Iterator

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray", reason="pip install 'vitrine[ray]'")


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    import ray.data
    from ray.data.context import ShuffleStrategy

    from feature_repo.distributed import cluster

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, **cluster.QUIET)
    cluster.connect("local")
    cluster.silence_ray()
    # Ray's default shuffle starts processes each time: seconds, where this one takes a fifth of a second.
    ray.data.DataContext.get_current().shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
    yield
    ray.shutdown()
