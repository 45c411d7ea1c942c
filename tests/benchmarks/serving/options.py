"""Command-line options, random requests, and the times of calls."""

import itertools
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer

from tests.benchmarks.serving.rows import make_ids

ProductsOption = Annotated[int, typer.Option(help="Products in the store.")]
UsersOption = Annotated[int, typer.Option(help="Users in the store, each with a full history.")]
CandidatesOption = Annotated[int, typer.Option("--asked", help="Candidates in one request.")]
CallsOption = Annotated[int, typer.Option(help="Requests in a turn; the median is kept.")]
Draw = Callable[[], tuple[str, list[str]]]

SEEDS = itertools.count()


def draw_requests(products: int, users: int, candidates: int) -> Draw:
    """Return a function that gives the user and the candidates of the next request."""
    rng = np.random.default_rng(next(SEEDS))
    requests = [
        (f"user-{rng.integers(users):06d}", make_ids("product", rng.choice(products, candidates, replace=False)))
        for _ in range(64)
    ]
    return itertools.cycle(requests).__next__


def record_times(call: Callable[[], object], times: list[float]) -> Callable[[], object]:
    """Return a function that makes the call and appends its seconds to `times`."""

    def timing() -> object:
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
        return result

    return timing
