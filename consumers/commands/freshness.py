"""`consume freshness`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands import outcome
from feature_repo import config, console
from feature_repo.console import JsonOption, StoreOption
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def freshness(
    max_age: Annotated[str, typer.Option(help="Allowed age of a view's newest event: 90m, 6h, 2d.")] = "1d",
    now: Annotated[
        str | None, typer.Option(help="Time of the check, with its offset: 2026-03-01T12:00Z.", show_default="now")
    ] = None,
    products: Annotated[
        Path | None,
        typer.Option(
            help="Parquet or CSV with the product_id of every product on sale.", show_default="the catalogue up to now"
        ),
    ] = None,
    objectives: Annotated[
        Path | None, typer.Option(help="TOML file with objectives for views and slices, as docs/objectives.toml.")
    ] = None,
    impressions: Annotated[
        Path | None,
        typer.Option(
            help="Log of impressions (Parquet or CSV): measure which of them had features, and how old these were."
        ),
    ] = None,
    slices: Annotated[
        bool, typer.Option("--slices", help="Measure new products, categories and encoder versions separately.")
    ] = False,
    window: Annotated[
        str, typer.Option(help="Length of time before now whose events, impressions and refused rows are measured.")
    ] = "7d",
    new_for: Annotated[str, typer.Option(help="Time after its first event for which a product is new.")] = "7d",
    categories: Annotated[int, typer.Option(min=0, help="Number of category slices, the largest first.")] = 10,
    json: JsonOption = None,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Show the age of each view and how many products it covers. Exit code 1: a view is too old.

    With --objectives, --impressions or --slices, also show by slice the event-to-online lag, the coverage and the age
    of served features, and show refused rows and the last runs. A missed objective is exit code 1 and a line that says
    what to do first.
    """
    from consumers.monitoring.freshness.freshness import check
    from consumers.monitoring.terminal import as_json, freshness_table, slice_tables
    from feature_repo.durations import parse_duration, parse_timestamp

    timestamp, age = parse_timestamp(now) if now else datetime.now(UTC), parse_duration(max_age)
    deployment = config.load(store)
    if objectives or impressions or slices:
        from consumers.monitoring.freshness.objectives import Objectives, load_objectives
        from consumers.monitoring.freshness.report import build_report

        report = build_report(
            deployment,
            now=timestamp,
            max_age=age,
            objectives=load_objectives(objectives) if objectives else Objectives(),
            window=parse_duration(window),
            new_for=parse_duration(new_for),
            categories=categories,
            products=products,
            impressions=impressions,
            table_format=table_format,
        )
        tables, text, breaches = (
            [freshness_table(report.views), *slice_tables(report)],
            as_json(report),
            report.breaches,
        )
    else:
        result = check(deployment, max_age=age, now=timestamp, products=products, table_format=table_format)
        tables, text, breaches = [freshness_table(result)], as_json(result), result.breaches
    console.print_tables(*tables)
    outcome.finish_check(text, json, breaches)
