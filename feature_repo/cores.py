"""Work on every core, a piece a core.

NumPy and LightGBM work outside Python's lock. Each piece has one thread: on a busy machine, threads that wait for each
other at every split of a tree, or at every product of small matrices, cost many times what they save.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Given = TypeVar("Given")
Made = TypeVar("Made")


def map_on_all_cores(do: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
    """`do` each of `given`; the results come in that order, and the work begins when the first is asked for."""
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(do, given)
