"""`consume freshness`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from feature_repo import settings
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
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Say how late each view is and how many products it covers; exit code 1 if one is too late."""
    from consumers.monitoring import freshness as views
    from consumers.monitoring.ages import parse_age, parse_moment
    from consumers.monitoring.terminal import as_table

    allowed, moment = parse_age(max_age), parse_moment(now) if now else datetime.now(UTC)
    found = views.check(settings.load(store), max_age=allowed, now=moment, products=products)
    Console().print(as_table(found))
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(views.as_json(found))
        typer.echo(f"figures: {json}")
    for breach in found.breaches:
        typer.secho(breach, fg="red", err=True)
    if found.breaches:
        raise typer.Exit(1)
