"""`produce runs`."""

from typing import Annotated

import typer

from feature_repo import settings
from feature_repo.console import StoreOption


def runs(
    step: Annotated[str | None, typer.Option(help="Only the runs of `produce STEP`.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the latest to list.")] = 20,
    store: StoreOption = None,
) -> None:
    """List what producers did on this store: when, from what, with which model, how many rows, and how it ended."""
    from producers import ledger

    found = ledger.runs(settings.load(store), step=step)[-last:]
    for each in found:
        typer.echo(ledger.line(each))
    if not found:
        typer.echo("no run yet")
