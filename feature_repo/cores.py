"""How many cores this process may use, thread pools of that size, and a function run on all cores with threads.

NumPy and LightGBM release Python's lock. Each call runs on one thread: on a busy machine, threads that wait for each
other at every split of a tree, or at every product of small matrices, cost many times what they save.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows the limits of containers."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""The control groups of this process: lines of `NUMBER:CONTROLLERS:PATH`."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def limit_thread_pools(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> None:
    """Make the thread pools of libraries no larger than `count_cores`, in this process and those that it starts.

    The pools of OpenBLAS, torch, faiss, LightGBM and Arrow follow the affinity mask, but not the CPU limit of a
    container: 64 threads that share two cores wait for each other. They read OMP_NUM_THREADS when they are imported,
    so call this first. A value that the user has set stays, and without a limit none is set: Ray, for one, sets its own
    in each worker.

    Args:
        cgroups: the folder in which Linux shows control groups.
        membership: the file that names the groups of this process.
    """
    cores = count_cores(cgroups, membership)
    if cores < _count_available():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def count_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return how many cores this process may use, at least 1.

    This is the number of cores in its affinity mask, or less if a container limits its CPU time: the quota of its
    control group and of each group above it, version 2 (`cpu.max`) or 1 (`cpu.cfs_quota_us`), rounded up to whole
    cores. A limit that cannot be read is none. `os.cpu_count()` returns all cores of the machine.

    Args:
        cgroups: the folder in which Linux shows control groups.
        membership: the file that names the groups of this process.
    """
    quotas = [_read_quota(group) for group in _list_groups(cgroups, membership)]
    return max(1, min([_count_available(), *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _count_available() -> int:
    """Return the number of cores in the affinity mask; of all cores on macOS, which has none."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _list_groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that may limit CPU time, and of the groups above them."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in ["0::/", "1:cpu:/", *lines]:  # in a container the path may be that of the host, and the root is its own
        _, controllers, group = ([*line.split(":", 2), "", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / "cpu" if controllers else cgroups
        parts = [part for part in group.split("/") if part not in ("", "..")]
        yield from (root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _read_quota(group: Path) -> float | None:
    """Return how many cores a control group may use, a fraction perhaps; None without a limit."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def map_on_all_cores(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function(item)` for each item, in the order of the items.

    As many calls run at a time as this process may use cores. The work begins when the first result is requested; all
    items are read at that point. Until the end, BLAS uses one thread in the whole process. Without items, nothing is
    yielded. The exception of a call is raised when its result is due; calls that have not begun by then are not made.

    Args:
        function: called in other threads, with one item.
        items: the items; each call gets one.
    """
    from threadpoolctl import threadpool_limits  # a machine that only encodes does without

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(count_cores()) as pool:
        yield from pool.map(function, items)
