"""Who asks for what, and how long it takes."""

import itertools
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer

from tests.benchmarks.serving.rows import make_ids

ProductsOption = Annotated[int, typer.Option(help="Products in the store.")]
UsersOption = Annotated[int, typer.Option(help="Users in the store, each with a full history.")]
CandidatesOption = Annotated[int, typer.Option(help="Candidates of one request.")]
CallsOption = Annotated[int, typer.Option(help="Requests of a turn; the median is kept.")]
Draw = Callable[[], tuple[str, list[str]]]

SEEDS = itertools.count()


def draw_requests(products: int, users: int, asked: int) -> Draw:
    """A user and candidates, others at each call."""
    rng = np.random.default_rng(next(SEEDS))
    made = [
        (f"user-{rng.integers(users):06d}", make_ids("product", rng.choice(products, asked, replace=False)))
        for _ in range(64)
    ]
    return itertools.cycle(made).__next__


def record_times(call: Callable[[], object], times: list[float]) -> Callable[[], object]:
    """The call, whose seconds are kept too."""

    def timing() -> object:
        start = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - start)
        return found

    return timing
