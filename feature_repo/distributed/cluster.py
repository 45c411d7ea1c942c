"""Which Ray cluster, and what to say when Ray or the cluster is not there."""

import logging
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from feature_repo.errors import VitrineError

LOCAL = "local"
QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
"""For `ray.init`."""


def connect(address: str) -> None:
    """Make sure that this program is connected to a cluster; one that it is connected to already stays.

    Args:
        address: "local" starts one on this machine, as large as the machine; else as `ray.init` takes it ("auto",
            "head:6379", "ray://head:10001").

    Raises:
        VitrineError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise VitrineError(f"Ray is asked for and not installed ({error}): pip install 'vitrine[ray]'") from error
    ray.data.DataContext.get_current().raise_original_map_exception = True  # and `answers` finds ours in it
    if ray.is_initialized():
        return
    try:
        ray.init(address, **QUIET, **({"include_dashboard": False} if address == LOCAL else {}))
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        said = " ".join(str(error).split())
        raise VitrineError(f"no Ray cluster at `{address}` ({said}); see the option `ray`, or start one") from error
    silence_ray()


def silence_ray() -> None:
    """No progress bars and no log of Ray Data: what it logs of an error, and more, is in the error."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def count_cpus() -> int:
    """Processors of the cluster, one at least."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def local_task_options() -> dict[str, Any]:
    """Options that keep a task on the machine of the program that asks."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def iterate_results(work: Any) -> Iterator[pa.Table]:
    """What the tasks of a `ray.data.Dataset` give, block by block as they end.

    Raises:
        VitrineError: as a task raised it.
    """
    try:
        yield from work.iter_batches(batch_size=None, batch_format="pyarrow")
    except Exception as error:
        cause = getattr(error, "cause", None)  # as the task raised it: Ray has put a traceback around it
        if not isinstance(cause, VitrineError):
            raise
        raise VitrineError(str(cause).splitlines()[0]) from error  # below it, Ray has added advice
