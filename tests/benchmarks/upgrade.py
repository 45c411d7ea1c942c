"""Latency of `consume serve` before, during and after the switch of an encoder upgrade, under clients that never pause.

    python -m tests.benchmarks.upgrade [--redis] [--record]

A server in its own process answers 500 candidates a request to each client. The candidate's rows are copies of those in
production with another version: nothing is encoded, so the backfill is what an upgrade costs the disk and the online
store. The upgrade runs in a process of its own, with a nice value of 10. A phase ends when every client has got
the version that it leads to. Take the figures on a machine that does nothing else.
"""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from feature_repo.config import Settings
from producers.upgrade import machine
from tests import servers
from tests.benchmarks.backfill import UPGRADE_FILE, UPGRADE_TITLE
from tests.benchmarks.harness import RecordOption, replace_section
from tests.feature_repo.features import world
from tests.feature_repo.features.world import RANKED
from tests.producers.upgrade import shop
from tests.producers.upgrade.shop import NEW, OLD, Steps
from tests.test_upgrade_under_load import Client, serving, wait_for

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
CANDIDATES = 500
"""Candidates of a request; fewer in a shop with fewer products."""


class TimedClient(Client):
    """A client that also notes when each answer came and how long it took."""

    def __init__(self, address: str, products: list[str]) -> None:
        super().__init__(address, products)
        self.ended: list[float] = []
        self.seconds: list[float] = []

    def ask(self, client: httpx.Client, body: dict) -> httpx.Response:
        began = time.perf_counter()
        answer = super().ask(client, body)
        self.ended.append(time.perf_counter())
        self.seconds.append(self.ended[-1] - began)
        return answer


@app.command()
def measure(
    products: Annotated[int, typer.Option(help="Products of the shop.")] = 5_000,
    clients: Annotated[int, typer.Option(help="Clients that ask at the same time.")] = 4,
    pause: Annotated[float, typer.Option(help="Seconds of load before and after each phase.")] = 5.0,
    redis: Annotated[bool, typer.Option("--redis", help="Redis instead of LMDB.")] = False,
    record: RecordOption = False,
) -> None:
    """Run an upgrade, a rollback, another switch and a retirement under load; print p50 and p99 of each phase."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(servers.redis_server(folder / "redis")) if redis else None
        made = shop.make(folder / "shop", server.address if server else None, products=products)
        lines = _measure(made, products, clients, pause)
    typer.echo("\n".join(lines))
    if record:
        replace_section(UPGRADE_FILE, UPGRADE_TITLE, f"Latency under load, {'Redis' if redis else 'LMDB'}", lines)


def _retire(settings: Settings) -> None:
    machine.retire(settings, clock=lambda: RANKED + timedelta(hours=1))


def _measure(settings: Settings, products: int, count: int, pause: float) -> list[str]:
    """Return the lines of the table."""
    candidates = [product for i, product in enumerate(world.small_shop(products=products).products) if i % 9]
    candidates = candidates[:CANDIDATES]
    gate = shop.write_gate(settings.file.parent / "gate.json")
    phases: dict[str, tuple[float, float]] = {}
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=os.nice, initargs=(10,))
    with serving(settings) as address, pool:
        clients = [TimedClient(address, candidates) for _ in range(count)]
        for client in clients:
            client.start()

        def run(name: str, version: str, *steps: tuple[Callable[..., object], Any]) -> None:
            began = time.perf_counter()
            for function, *arguments in steps:
                pool.submit(function, settings, *arguments).result()
            wait_for(clients, version)
            phases[name] = (began, time.perf_counter())
            time.sleep(pause)

        prepare = ((shop.start,), (shop.advance, Steps(settings)), (shop.advance, Steps(settings), gate))
        switch = (shop.advance, Steps(settings))
        try:
            wait_for(clients, OLD)
            pool.submit(time.sleep, 2 * pause).result()
            run("before", OLD, (_sleep, 2 * pause))
            run("backfill, offline and online", OLD, *prepare)
            run("switch", NEW, switch)
            phases["within the pause around the switch"] = (phases["switch"][1] - pause, phases["switch"][1] + pause)
            run("rollback", OLD, (shop.rollback, Steps(settings)))
            run("second backfill and switch", NEW, *prepare, switch)
            run("retire", NEW, (_retire,))
        finally:
            for client in clients:
                client.stopped.set()
            for client in clients:
                client.join(60)
    ended, seconds = (np.concatenate([getattr(client, name) for client in clients]) for name in ("ended", "seconds"))
    failures = sum(len(client.failures) for client in clients)
    lines = [
        f"{products:,} products, {count} clients, {len(seconds):,} requests of {len(candidates)} candidates; "
        f"{failures} failed or mixed.",
        "",
        "| phase | seconds | requests | p50 | p99 | p99 against before |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    base = None
    for name, (start, end) in phases.items():
        part = seconds[(ended >= start) & (ended <= end)] * 1000
        p50, p99 = np.percentile(part, [50, 99])
        base = base or p99
        figures = f"{end - start:.1f} | {len(part):,} | {p50:.1f} ms | {p99:.1f} ms | {p99 / base:.2f}x"
        lines.append(f"| {name} | {figures} |")
    return lines


def _sleep(settings: Settings, seconds: float) -> None:
    time.sleep(seconds)


if __name__ == "__main__":
    app()
