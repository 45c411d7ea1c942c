"""Concurrent clients."""

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
    candidates: CandidatesOption = 500,
    clients: Annotated[int, typer.Option(help="Concurrent clients.")] = 8,
    seconds: Annotated[float, typer.Option(help="Duration.")] = 60.0,
    processes: Annotated[
        int, typer.Option(help="Processes of `consume serve`; clients are distributed over them.")
    ] = 1,
    record: RecordOption = False,
) -> None:
    """Measure concurrent clients; exit with 1 if one gets an error."""
    with open_deployments(products, users) as (root, _), run_vitrine_serve(root, processes=processes) as addresses:
        times: list[float] = []
        errors: list[str] = []
        until = time.monotonic() + seconds

        def run_client(address: str) -> None:
            draw = draw_requests(products, users, candidates)
            own_times: list[float] = []
            with FlightClient(address, SERVICE) as client:
                fetch = record_times(lambda: client.fetch(*draw()), own_times)
                while time.monotonic() < until:
                    try:
                        fetch()
                    except Exception as error:
                        errors.append(str(error))
            times.extend(own_times)

        threads = [
            threading.Thread(target=run_client, args=(addresses["flight"][i % processes],)) for i in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    p50, p99 = np.quantile(times, [0.5, 0.99]).tolist()
    several = f" of {processes} processes" if processes > 1 else ""
    what = (
        f"serve 1 user + {candidates} candidates, Flight{several}, {clients} clients at once for {seconds:.0f} s, p50"
    )
    figure = harness.BenchmarkFigure(
        name=what,
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
