"""Flight against its parts, and HTTP against Flight."""

import statistics
from datetime import UTC, datetime

import numpy as np
from threadpoolctl import threadpool_limits

from consumers.online import OnlineReader
from consumers.online.affinity import fetch_with_affinity
from consumers.serving.client import FlightClient, HttpClient, encode_request
from feature_repo import memory
from tests.benchmarks import harness
from tests.benchmarks.harness import RecordOption, RoundsOption
from tests.benchmarks.serving.bare_flight import open_bare_flight
from tests.benchmarks.serving.deployment import SERVICE, open_deployments
from tests.benchmarks.serving.options import (
    CallsOption,
    CandidatesOption,
    ProductsOption,
    UsersOption,
    draw_requests,
    record_times,
)
from tests.benchmarks.serving.processes import run_vitrine_serve
from tests.benchmarks.serving.rows import DIM


def turns(
    products: ProductsOption = 10_000,
    users: UsersOption = 500,
    candidates: CandidatesOption = 500,
    rounds: RoundsOption = 10,
    calls: CallsOption = 50,
    record: RecordOption = False,
) -> None:
    """Flight against its parts, and HTTP against Flight."""
    memory.keep_freed()  # as in the server
    draw = draw_requests(products, users, candidates)
    with (
        open_deployments(products, users) as (root, server),
        run_vitrine_serve(root) as addresses,
        OnlineReader(f"redis://{server.address}", "ours") as reader,
        FlightClient(addresses["flight"][0], SERVICE) as client,
        open_bare_flight(root, client, draw) as round_trip,
        threadpool_limits(1),  # as in the server: the reader's small matrix products are slower on several threads
    ):
        web = HttpClient(addresses["http"][0])
        times: list[float] = []
        sides = {
            "ours": record_times(lambda: client.fetch(*draw()), times),
            "reader": lambda: fetch_with_affinity(reader, SERVICE, *draw(), datetime.now(UTC)),
            "bare": lambda: round_trip(encode_request(SERVICE, *draw())),
            "HTTP": lambda: web.fetch(SERVICE, *draw()),
        }
        seconds = harness.take_turns(sides, rounds, calls)
    parts = "the fast reader plus a bare Flight round trip"
    seconds[parts] = [one + other for one, other in zip(seconds["reader"], seconds["bare"], strict=True)]
    medians = {name: statistics.median(values) * 1e3 for name, values in seconds.items()}
    what = f"serve 1 user + {candidates} of {products:,} products, {DIM}-d, tags, codes, affinity, "
    note = (
        f"p99 {np.quantile(times, 0.99) * 1e3:.2f} ms; reader {medians['reader']:.2f} ms, bare {medians['bare']:.2f} ms"
    )
    figures = [
        harness.compare_sides(what + "Flight", seconds, "ours", parts, note),
        harness.compare_sides(what + "HTTP Arrow", seconds, "HTTP", "ours", "theirs is Flight"),
    ]
    harness.report_figures(figures, record)
