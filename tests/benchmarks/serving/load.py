"""Clients at once."""

import threading
import time
from typing import Annotated

import numpy as np
import typer

from consumers.serving.client import FlightClient
from tests.benchmarks import harness
from tests.benchmarks.harness import RecordOption
from tests.benchmarks.serving.deployment import SERVICE, open_deployments
from tests.benchmarks.serving.options import CandidatesOption, ProductsOption, UsersOption, draw_requests, record_times
from tests.benchmarks.serving.processes import run_vitrine_serve


def load(
    products: ProductsOption = 10_000,
    users: UsersOption = 500,
    asked: CandidatesOption = 500,
    clients: Annotated[int, typer.Option(help="Clients at once.")] = 8,
    seconds: Annotated[float, typer.Option(help="For how long.")] = 60.0,
    processes: Annotated[int, typer.Option(help="As of `consume serve`; clients take them in turn.")] = 1,
    record: RecordOption = False,
) -> None:
    """Clients at once: none may see an error."""
    with open_deployments(products, users) as (root, _), run_vitrine_serve(root, processes=processes) as at:
        times: list[float] = []
        errors: list[str] = []
        until = time.monotonic() + seconds

        def ask(address: str) -> None:
            draw = draw_requests(products, users, asked)
            mine: list[float] = []
            with FlightClient(address, SERVICE) as client:
                fetch = record_times(lambda: client.fetch(*draw()), mine)
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
    figure = harness.BenchmarkFigure(
        name=f"serve 1 user + {asked} candidates, Flight{several}, {clients} clients at once for {seconds:.0f} s, p50",
        seconds=p50,
        against="p99",
        against_seconds=p99,
        ratio=p99 / p50,
        ratio_range=(p99 / p50, p99 / p50),
        rounds=1,
        command=harness.format_command(),
        note=f"{len(times):,} requests, {len(times) / seconds:,.0f}/s, errors: {len(errors)}",
    )
    harness.report_figures([figure], record)
    if errors:
        print(errors[0])
        raise typer.Exit(1)
