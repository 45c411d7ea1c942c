"""Flight beside `feast serve`."""

from consumers.serving.client import FlightClient
from tests.benchmarks import harness
from tests.benchmarks.harness import Record, Rounds
from tests.benchmarks.serving.deployment import SERVICE, world
from tests.benchmarks.serving.options import Asked, Calls, Products, Users, drawn
from tests.benchmarks.serving.processes import feast_serve, serving
from tests.benchmarks.serving.rows import DIM


def stock(
    products: Products = 3_000,
    users: Users = 200,
    asked: Asked = 500,
    rounds: Rounds = 5,
    calls: Calls = 5,
    record: Record = False,
) -> None:
    """Flight beside `feast serve`."""
    draw = drawn(products, users, asked)
    with (
        world(products, users, stock=True) as (root, _),
        serving(root) as at,
        feast_serve(root) as ask,
        FlightClient(at["flight"][0], SERVICE) as client,
    ):
        sides = {"ours": lambda: client.fetch(*draw()), "feast serve": lambda: ask(*draw())}
        seconds = harness.take_turns(sides, rounds, calls)
    what = f"serve 1 user + {asked} of {products:,} products, {DIM}-d, tags, codes, affinity, Flight"
    note = "theirs: stock Redis store, JSON over HTTP parsed, no affinity"
    harness.finish([harness.compare(what, seconds, "ours", "feast serve", note)], record)
