"""`consume drift`."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from consumers.commands import outcome
from feature_repo import config
from feature_repo.console import JsonOption, StoreOption


def drift(
    window: Annotated[str, typer.Option(help="Products of so long before now are compared ...")] = "7d",
    before: Annotated[str, typer.Option(help="... with those of so long before that.")] = "28d",
    once_in: Annotated[
        int, typer.Option(min=10, help="A shop in which nothing changes raises one false alarm in so many checks.")
    ] = 365,
    sample: Annotated[int, typer.Option(min=30, help="Products of each side, at most.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample and of the permutations.")] = 0,
    now: Annotated[
        str | None, typer.Option(help="Judge as of this time, with its offset: 2026-03-01T12:00Z.", show_default="now")
    ] = None,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Say whether vectors, tags and codes of now look like those of before; exit code 1 if they do not.

    Thresholds come from exchanging the products of now and of before within category and newness, and hold for all
    statistics together. Exit code 3 says that there were too few products to judge anything.
    """
    from consumers.monitoring.drift.check import check
    from consumers.monitoring.figures import as_json
    from consumers.monitoring.terminal import drift_table
    from feature_repo.durations import parse_duration, parse_timestamp

    found = check(
        config.load(store),
        now=parse_timestamp(now) if now else datetime.now(UTC),
        window=parse_duration(window),
        before=parse_duration(before),
        once_in=once_in,
        sample=sample,
        seed=seed,
    )
    Console().print(drift_table(found))
    outcome.finish_check(as_json(found), json, found.breaches, found.blind)
