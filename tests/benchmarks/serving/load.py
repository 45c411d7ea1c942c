"""Clients at once."""

import threading
import time
from typing import Annotated

import numpy as np
import typer

from consumers.serving.client import FlightClient
from tests.benchmarks import harness
from tests.benchmarks.harness import Record
from tests.benchmarks.serving.deployment import SERVICE, world
from tests.benchmarks.serving.options import Asked, Products, Users, drawn, timed
from tests.benchmarks.serving.processes import serving


def load(
    products: Products = 10_000,
    users: Users = 500,
    asked: Asked = 500,
    clients: Annotated[int, typer.Option(help="Clients at once.")] = 8,
    seconds: Annotated[float, typer.Option(help="For how long.")] = 60.0,
    processes: Annotated[int, typer.Option(help="As of `consume serve`; clients take them in turn.")] = 1,
    record: Record = False,
) -> None:
    """Clients at once: none may see an error."""
    with world(products, users) as (root, _), serving(root, processes=processes) as at:
        times: list[float] = []
        errors: list[str] = []
        until = time.monotonic() + seconds

        def ask(address: str) -> None:
            draw = drawn(products, users, asked)
            mine: list[float] = []
            with FlightClient(address, SERVICE) as client:
                fetch = timed(lambda: client.fetch(*draw()), mine)
                while time.monotonic() < until:
                    try:
                        fetch()
                    except Exception as error:
                        errors.append(str(error))
            times.extend(mine)

        threads = [threading.Thread(target=ask, args=(at["flight"][i % processes],)) for i in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    p50, p99 = np.quantile(times, [0.5, 0.99]).tolist()
    several = f" of {processes} processes" if processes > 1 else ""
    figure = harness.Figure(
        name=f"serve 1 user + {asked} candidates, Flight{several}, {clients} clients at once for {seconds:.0f} s, p50",
        seconds=p50,
        against="p99",
        against_seconds=p99,
        ratio=p99 / p50,
        ratio_range=(p99 / p50, p99 / p50),
        rounds=1,
        command=harness.command(),
        note=f"{len(times):,} requests, {len(times) / seconds:,.0f}/s, errors: {len(errors)}",
    )
    harness.finish([figure], record)
    if errors:
        print(errors[0])
        raise typer.Exit(1)
