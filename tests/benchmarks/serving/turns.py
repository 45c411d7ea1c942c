"""Flight beside its parts, and HTTP beside Flight."""

import statistics
from datetime import UTC, datetime

import numpy as np
from threadpoolctl import threadpool_limits

from consumers.online import OnlineReader
from consumers.online.affinity import fetch_with_affinity
from consumers.serving.client import FlightClient, HttpClient, encode_request
from feature_repo import memory
from tests.benchmarks import harness
from tests.benchmarks.harness import Record, Rounds
from tests.benchmarks.serving.bare_flight import bare
from tests.benchmarks.serving.deployment import SERVICE, world
from tests.benchmarks.serving.options import Asked, Calls, Products, Users, drawn, timed
from tests.benchmarks.serving.processes import serving
from tests.benchmarks.serving.rows import DIM


def turns(
    products: Products = 10_000,
    users: Users = 500,
    asked: Asked = 500,
    rounds: Rounds = 10,
    calls: Calls = 50,
    record: Record = False,
) -> None:
    """Flight beside its parts, and HTTP beside Flight."""
    memory.keep_freed()  # as in the server
    draw = drawn(products, users, asked)
    with (
        world(products, users) as (root, server),
        serving(root) as at,
        OnlineReader(f"redis://{server.address}", "ours") as reader,
        FlightClient(at["flight"][0], SERVICE) as client,
        bare(root, client, draw) as round_trip,
        threadpool_limits(1),  # as in the server: the reader's small products are slower on several threads
    ):
        web = HttpClient(at["http"][0])
        times: list[float] = []
        sides = {
            "ours": timed(lambda: client.fetch(*draw()), times),
            "reader": lambda: fetch_with_affinity(reader, SERVICE, *draw(), datetime.now(UTC)),
            "bare": lambda: round_trip(encode_request(SERVICE, *draw())),
            "HTTP": lambda: web.fetch(SERVICE, *draw()),
        }
        seconds = harness.take_turns(sides, rounds, calls)
    parts = "the fast reader plus a bare Flight round trip"
    seconds[parts] = [one + other for one, other in zip(seconds["reader"], seconds["bare"], strict=True)]
    medians = {name: statistics.median(values) * 1e3 for name, values in seconds.items()}
    what = f"serve 1 user + {asked} of {products:,} products, {DIM}-d, tags, codes, affinity, "
    note = (
        f"p99 {np.quantile(times, 0.99) * 1e3:.2f} ms; reader {medians['reader']:.2f} ms, bare {medians['bare']:.2f} ms"
    )
    figures = [
        harness.compare(what + "Flight", seconds, "ours", parts, note),
        harness.compare(what + "HTTP Arrow", seconds, "HTTP", "ours", "theirs is Flight"),
    ]
    harness.finish(figures, record)
