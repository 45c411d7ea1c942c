"""`produce runs`."""

from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption


def runs(
    step: Annotated[str | None, typer.Option(help="List only the runs of `produce STEP`.")] = None,
    last: Annotated[int, typer.Option(min=1, help="List this many of the latest runs.")] = 20,
    store: StoreOption = None,
) -> None:
    """List the runs of producers on this store: start, input tables, model, row counts and how each run ended."""
    from feature_repo import run_log

    all_runs = run_log.read_runs(config.load(store))
    listed = [run for run in all_runs if step in (None, run.step)][-last:]
    for run in listed:
        typer.echo(run_log.format_run(run))
    if not listed:
        steps = ", ".join(dict.fromkeys(run.step for run in all_runs))
        typer.echo(f"no run of {step} yet; there are runs of {steps}" if steps else "no run yet")
