"""One Ray of two processors, on this machine, for all tests."""

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
    # Ray's default exchange starts processes for each: seconds here for what takes this one a fifth of a second.
    ray.data.DataContext.get_current().shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
    yield
    ray.shutdown()
