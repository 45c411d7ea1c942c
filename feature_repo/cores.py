"""Run a function on all cores with threads.

NumPy and LightGBM release Python's lock. Each call runs on one thread: on a busy machine, threads that wait for each
other at every split of a tree, or at every product of small matrices, cost many times what they save.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_all_cores(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function(item)` for each item, in the order of the items.

    As many calls run at a time as there are cores. The work begins when the first result is requested; all items are
    read at that point. Until the end, BLAS uses one thread in the whole process. Without items, nothing is yielded. The
    exception of a call is raised when its result is due; calls that have not begun by then are not made.

    Args:
        function: called in other threads, with one item.
        items: the items; each call gets one.
    """
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(function, items)
