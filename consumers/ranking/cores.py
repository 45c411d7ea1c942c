"""Work on every core, a piece a core.

NumPy and LightGBM work outside Python's lock. Each piece has one thread: on a busy machine, threads that wait for each
other at every split of a tree, or at every product of small matrices, cost many times what they save.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Given = TypeVar("Given")
Made = TypeVar("Made")


def on_every_core(do: Callable[[Given], Made], given: Iterable[Given]) -> list[Made]:
    """`do` each of `given`, in their order."""
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(do, given))
