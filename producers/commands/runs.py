"""`produce runs`."""

from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption


def runs(
    step: Annotated[str | None, typer.Option(help="Only the runs of `produce STEP`.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the latest to list.")] = 20,
    store: StoreOption = None,
) -> None:
    """List what producers did on this store: when, from what, with which model, how many rows, and how it ended."""
    from feature_repo import run_log

    known = run_log.read_runs(config.load(store))
    found = [each for each in known if step in (None, each.step)][-last:]
    for each in found:
        typer.echo(run_log.format_run(each))
    if not found:
        others = ", ".join(dict.fromkeys(each.step for each in known))
        typer.echo(f"no run of {step} yet; there are runs of {others}" if others else "no run yet")
