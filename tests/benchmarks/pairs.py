"""Pairs scored live: both pictures sent, the small encoder on the CPU, several clients at once.

    python -m tests.benchmarks.pairs --record

`consume serve --towers` runs in a process of its own. Each request has one pair of two products that the shop does not
have, each with title, brand, price, category and a picture of its own. The clients share the machine with the server.
"""

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer

from consumers.serving.client import HttpClient
from tests.benchmarks import harness
from tests.benchmarks.harness import RecordOption
from tests.benchmarks.serving.deployment import make_deployment
from tests.benchmarks.serving.processes import run_vitrine_serve
from tests.consumers.pairs.world import PairWorld, make_world

LMDB = "feature_repo.stores.online.LMDBOnlineStore"


def main(
    side: Annotated[int, typer.Option(help="Height and width of a picture in pixels; a JPEG.")] = 400,
    clients: Annotated[int, typer.Option(help="Concurrent clients.")] = 4,
    seconds: Annotated[float, typer.Option(help="Duration.")] = 30.0,
    record: RecordOption = False,
) -> None:
    """Measure the time of requests; exit with 1 if one gets an error."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        world = make_world(root, side=side, suffix="jpg")
        make_deployment(root, "ours", {"type": LMDB, "path": str(root / "online")}, {})

        with run_vitrine_serve(root, options=["--towers", str(world.towers), "--deadline", "30"]) as addresses:
            before = _measure_cpu_seconds()
            times, errors, load = _run_clients(addresses["http"][0], world, clients, seconds)
            cpu = (_measure_cpu_seconds() - before) / len(times)
    p50, p95 = np.quantile(times, [0.5, 0.95]).tolist()
    figure = harness.BenchmarkFigure(
        name=f"score 1 pair over HTTP, two JPEGs of {side} x {side} sent, small encoder, {clients} clients at once for "
        f"{seconds:.0f} s, p95",
        seconds=p95,
        against="p50",
        against_seconds=p50,
        ratio=p50 / p95,
        ratio_range=(p50 / p95, p50 / p95),
        rounds=1,
        command=harness.format_command(),
        note=f"{len(times):,} requests, {len(times) / seconds:,.0f}/s, errors: {len(errors)}; {cpu * 1e3:.0f} ms of "
        f"processor time of the server for each; load of the machine before: {load:.1f}",
    )
    harness.report_figures([figure], record)
    if errors:
        print(errors[0])
        raise typer.Exit(1)


def _measure_cpu_seconds() -> float:
    """Return the processor time of the server's processes so far."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def _run_clients(address: str, world: PairWorld, clients: int, seconds: float) -> tuple[list[float], list[str], float]:
    """Return the seconds of each request, the errors, and the load of the machine before."""
    load = os.getloadavg()[0]
    products = [
        {name: row[name] for name in ("title", "brand", "price", "category") if row[name] is not None}
        | {"picture": (world.folder / f"{row['product_id']}.jpg").read_bytes()}
        for row in world.products.to_pylist()
    ]
    times: list[float] = []
    errors: list[str] = []
    until = time.monotonic() + seconds

    def run_client(number: int) -> None:
        rng = np.random.default_rng(number)
        client = HttpClient(address, timeout=30)
        own: list[float] = []
        while time.monotonic() < until:
            left, right = rng.integers(0, len(products), 2).tolist()
            start = time.perf_counter()
            try:
                client.score_pairs([{"left": products[left], "right": products[right]}])
            except Exception as error:
                errors.append(str(error))
            own.append(time.perf_counter() - start)
        times.extend(own)
        client.close()

    threads = [threading.Thread(target=run_client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, errors, load


if __name__ == "__main__":
    typer.run(main)
