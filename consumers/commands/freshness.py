"""`consume freshness`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from consumers.commands import outcome
from feature_repo import config
from feature_repo.console import JsonOption, StoreOption


def freshness(
    max_age: Annotated[str, typer.Option(help="The greatest age of a view's newest event: 90m, 6h, 2d.")] = "1d",
    now: Annotated[
        str | None, typer.Option(help="Judge as of this time, with its offset: 2026-03-01T12:00Z.", show_default="now")
    ] = None,
    products: Annotated[
        Path | None,
        typer.Option(help="Parquet with the product_id of what is on sale.", show_default="the catalogue up to now"),
    ] = None,
    objectives: Annotated[
        Path | None, typer.Option(help="TOML of what is wanted of each view and slice: docs/objectives.toml.")
    ] = None,
    impressions: Annotated[
        Path | None, typer.Option(help="Parquet of what was shown: how much of it had rows?")
    ] = None,
    slices: Annotated[
        bool, typer.Option("--slices", help="Lag, coverage and age of new products, categories, encoder versions.")
    ] = False,
    window: Annotated[
        str, typer.Option(help="Look at events, impressions and refused rows so long before now.")
    ] = "7d",
    new_for: Annotated[str, typer.Option(help="How long a product is new.")] = "7d",
    categories: Annotated[int, typer.Option(min=0, help="Categories to look at, the largest first.")] = 10,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Say how late each view is and how many products it covers; exit code 1 if one is too late.

    With objectives, impressions or --slices also by slice: event-to-online lag, coverage, the age of what was served,
    refused rows and the last runs; an objective that is not met is exit code 1 and a line that says what to do first.
    """
    from consumers.monitoring.figures import as_json
    from consumers.monitoring.freshness import freshness as views
    from consumers.monitoring.terminal import as_table, slice_tables
    from feature_repo.durations import parse_duration, parse_timestamp

    allowed, moment = parse_duration(max_age), parse_timestamp(now) if now else datetime.now(UTC)
    opened = config.load(store)
    if objectives or impressions or slices:
        from consumers.monitoring.freshness import report
        from consumers.monitoring.freshness.objectives import Objectives, load

        sliced = report.look(
            opened,
            now=moment,
            max_age=allowed,
            objectives=load(objectives) if objectives else Objectives(),
            window=parse_duration(window),
            new_for=parse_duration(new_for),
            categories=categories,
            products=products,
            impressions=impressions,
        )
        found, text, breaches = sliced.views, as_json(sliced), sliced.breaches
        Console().print(as_table(found), *slice_tables(sliced))
    else:
        found = views.check(opened, max_age=allowed, now=moment, products=products)
        text, breaches = as_json(found), found.breaches
        Console().print(as_table(found))
    outcome.finish_check(text, json, breaches)
