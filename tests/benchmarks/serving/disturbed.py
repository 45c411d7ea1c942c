"""Good requests while callers without a token do their worst."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import httpx
import numpy as np
import psutil
import typer
from prometheus_client.parser import text_string_to_metric_families

from consumers.serving.client import FlightClient, HttpClient
from tests.benchmarks import harness
from tests.benchmarks.harness import RecordOption
from tests.benchmarks.serving.attack import ENDLESS, HALF_OPEN
from tests.benchmarks.serving.deployment import SERVICE, open_deployments
from tests.benchmarks.serving.options import CandidatesOption, ProductsOption, UsersOption, draw_requests, record_times
from tests.benchmarks.serving.processes import run_vitrine_serve, stop_on_exit

TOKEN = "a-token-that-nobody-guesses"


def disturbed(
    products: ProductsOption = 10_000,
    users: UsersOption = 500,
    candidates: CandidatesOption = 500,
    clients: Annotated[int, typer.Option(help="Good clients of each protocol.")] = 2,
    per_second: Annotated[float, typer.Option(help="Requests of one good client per second.")] = 5.0,
    guesses: Annotated[int, typer.Option(help="Requests with a wrong token per second.")] = 200,
    seconds: Annotated[float, typer.Option(help="Duration of each part: first undisturbed, then disturbed.")] = 300.0,
    record: RecordOption = False,
) -> None:
    """Measure good requests before and during the disturbance; exit with 1 if one gets an error."""
    errors: list[str] = []
    figures = []
    with (
        open_deployments(products, users) as (root, _),
        run_vitrine_serve(root, token=TOKEN) as addresses,
    ):
        http, flight = addresses["http"][0], addresses["flight"][0]

        def measure(seconds: float) -> dict[str, list[float]]:
            """Return the seconds of each request by protocol."""
            times: dict[str, list[float]] = {"HTTP Arrow": [], "Flight": []}

            def run_client(protocol: str, fetch: Callable[[], object], begin: float) -> None:
                timed = record_times(fetch, times[protocol])
                for number in range(int(seconds * per_second)):
                    time.sleep(max(0.0, begin + number / per_second - time.monotonic()))
                    try:
                        timed()
                    except Exception as error:
                        errors.append(f"{protocol}: {error}")

            def run_http(begin: float) -> None:
                draw, client = draw_requests(products, users, candidates), HttpClient(http, token=TOKEN)
                run_client("HTTP Arrow", lambda: client.fetch(SERVICE, *draw()), begin)
                client.close()

            def run_flight(begin: float) -> None:
                draw = draw_requests(products, users, candidates)
                with FlightClient(flight, SERVICE, token=TOKEN) as client:
                    run_client("Flight", lambda: client.fetch(*draw()), begin)

            begin = time.monotonic() + 0.5
            threads = [
                threading.Thread(target=run, args=(begin + i / clients / per_second,))
                for run in (run_http, run_flight)
                for i in range(clients)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return times

        load = os.getloadavg()[0]
        measure(5)
        before = measure(seconds)
        with run_attack(http, flight, guesses):
            measure(min(10.0, seconds))
            memory = [server_megabytes()]
            during = measure(seconds)
            memory.append(server_megabytes())
            refused = count_refused(http)
    note = (
        f"beside it {HALF_OPEN} half-open connections to each protocol, {ENDLESS} endless headers, {guesses} wrong "
        f"tokens/s; refused: {refused}; server {memory[0]:.0f} MB at first, {memory[1]:.0f} MB at the end; "
        f"errors: {len(errors)}; load average of the machine before it: {load:.1f}"
    )
    for protocol in before:
        medians = [float(np.median(one[protocol])) * 1e3 for one in (during, before)]
        p99, undisturbed = (float(np.quantile(one[protocol], 0.99)) for one in (during, before))
        figures.append(
            harness.BenchmarkFigure(
                name=f"serve 1 user + {candidates} candidates, {protocol}, p99 of {len(during[protocol]):,} requests "
                f"while disturbed for {seconds:.0f} s",
                seconds=p99,
                against="p99 before",
                against_seconds=undisturbed,
                ratio=undisturbed / p99,
                ratio_range=(undisturbed / p99, undisturbed / p99),
                rounds=1,
                command=harness.format_command(),
                note=f"p50 {medians[0]:.2f} ms, before {medians[1]:.2f} ms; {note}",
            )
        )
    harness.report_figures(figures, record)
    if errors:
        print(errors[0])
        raise typer.Exit(1)


@contextmanager
def run_attack(http: str, flight: str, guesses: int) -> Iterator[None]:
    """Attack both addresses from another process during the `with` statement."""
    command = [sys.executable, "-m", "tests.benchmarks.serving.attack", http, flight, str(guesses)]
    with stop_on_exit(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "attacking\n"
        yield
        assert process.poll() is None, "the attack has ended too early"


def server_megabytes() -> float:
    """Return the resident memory of the serving processes, which are this process's grandchildren, in 10^6 bytes."""
    servers = [one for one in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(one.cmdline())]
    return float(sum(one.memory_info().rss for one in servers)) / 1e6


def count_refused(http: str) -> str:
    """Return the refused connections by reason."""
    text = httpx.get(f"{http}/metrics", headers={"authorization": f"Bearer {TOKEN}"}, timeout=30).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["vitrine_serving_connections_refused"].samples
    return ", ".join(f"{one.value:,.0f} {one.labels['reason']}" for one in samples if one.name.endswith("_total"))
