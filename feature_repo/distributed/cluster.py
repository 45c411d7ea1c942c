"""Connect to a Ray cluster, and run its tasks with one-line errors."""

import logging
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from feature_repo.errors import UnavailableError, VitrineError

LOCAL = "local"
QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
"""Options of `ray.init`."""


def connect(address: str) -> None:
    """Connect this process to a Ray cluster. If it is already connected to one, nothing happens.

    Args:
        address: "local" starts a cluster on this machine, with all of its processors. Anything else is an address as
            `ray.init` takes it ("auto", "head:6379", "ray://head:10001"). Ignored if there is a connection already.

    Raises:
        UnavailableError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UnavailableError(f"Ray is configured but not installed ({error}): pip install 'vitrine[ray]'") from error
    ray.data.DataContext.get_current().raise_original_map_exception = True  # `iterate_results` looks for ours in it
    if ray.is_initialized():
        return
    try:
        ray.init(address, **QUIET, **({"include_dashboard": False} if address == LOCAL else {}))
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        message = " ".join(str(error).split())
        raise UnavailableError(
            f"no Ray cluster at `{address}` ({message}); start one, or change the option `ray`"
        ) from error
    silence_ray()


def silence_ray() -> None:
    """Turn off Ray Data's progress bars and log in this process. Errors are still raised, with their text."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def count_cpus() -> int:
    """Return the number of processors of all machines of the connected cluster, busy or not; at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def local_task_options() -> dict[str, Any]:
    """Return options for `ray.remote`, by name, that let a task run on the machine of this process only.

    The process must be connected to a cluster.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def iterate_results(work: Any) -> Iterator[pa.Table]:
    """Yield the blocks of a `ray.data.Dataset` as its tasks finish, in no fixed order.

    Args:
        work: the data set. Its tasks start when the first block is requested.

    Raises:
        VitrineError: a task raised it; class and first line of the message are those of the task's error. Every other
            exception of a task is raised as Ray reports it.
    """
    try:
        yield from work.iter_batches(batch_size=None, batch_format="pyarrow")
    except Exception as error:
        cause = getattr(error, "cause", None)  # the exception of the task, around which Ray puts a traceback
        if not isinstance(cause, VitrineError):
            raise
        # Ray subclasses the task's error, and appends advice to its message.
        kind = next(each for each in type(cause).__mro__ if each.__module__ == VitrineError.__module__)
        raise kind(str(cause).splitlines()[0]) from error
