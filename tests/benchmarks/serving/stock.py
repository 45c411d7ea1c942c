"""Flight against `feast serve`."""

from consumers.serving.client import FlightClient
from tests.benchmarks import harness
from tests.benchmarks.harness import RecordOption, RoundsOption
from tests.benchmarks.serving.deployment import SERVICE, open_deployments
from tests.benchmarks.serving.options import CallsOption, CandidatesOption, ProductsOption, UsersOption, draw_requests
from tests.benchmarks.serving.processes import run_feast_serve, run_vitrine_serve
from tests.benchmarks.serving.rows import DIM


def stock(
    products: ProductsOption = 3_000,
    users: UsersOption = 200,
    candidates: CandidatesOption = 500,
    rounds: RoundsOption = 5,
    calls: CallsOption = 5,
    record: RecordOption = False,
) -> None:
    """Flight against `feast serve`."""
    draw = draw_requests(products, users, candidates)
    with (
        open_deployments(products, users, stock=True) as (root, _),
        run_vitrine_serve(root) as addresses,
        run_feast_serve(root) as fetch,
        FlightClient(addresses["flight"][0], SERVICE) as client,
    ):
        sides = {"ours": lambda: client.fetch(*draw()), "feast serve": lambda: fetch(*draw())}
        seconds = harness.take_turns(sides, rounds, calls)
    what = f"serve 1 user + {candidates} of {products:,} products, {DIM}-d, tags, codes, affinity, Flight"
    note = "theirs: stock Redis store, JSON over HTTP parsed, no affinity"
    harness.report_figures([harness.compare_sides(what, seconds, "ours", "feast serve", note)], record)
