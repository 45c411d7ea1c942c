"""`consume proxies`."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from consumers.commands import outcome
from feature_repo.console import JsonOption


def proxies(
    figures: Annotated[list[Path], typer.Argument(help="Files that `consume lift --json` wrote, one an encoder.")],
    json: JsonOption = None,
) -> None:
    """Set what can be said of an encoder without a ranker beside the lift that a ranker had of it.

    A new encoder can be judged by its next-click hit rate, same-product recall and tag F1 before a ranker is trained,
    as far as those have foretold lifts so far: points in a table, and a rank correlation from 8 encoders on.
    """
    from consumers.ranking import proxies as measured

    points = measured.read_points(figures)
    found = measured.correlate_with_lift(points)
    table = Table()
    table.add_column("encoder", overflow="fold")  # versions differ in what an ellipsis would hide
    for name in measured.NAMES:
        table.add_column(name.replace("_", " "))
    table.add_column("lift", no_wrap=True)
    table.add_column("95% interval", no_wrap=True)
    for point in points:
        values = [point[name] for name in measured.NAMES]
        shown = ["–" if value is None else f"{value:.3f}" for value in values]
        low, high = point["ci95"]
        lift = f"{point['lift']:+.4f}", f"[{low:+.4f}, {high:+.4f}]"
        table.add_row(str(point["encoder"]), *shown, *lift)
    Console().print(table)
    said = ", ".join(f"{name} {value:+.2f}" for name, value in found.items())
    typer.echo(f"rank correlation with the lift: {said or f'not below {measured.MIN_ENCODERS} encoders'}")
    outcome.write_figures(
        dumps({"points": points, "rank_correlation": found}, indent=1, ensure_ascii=False) + "\n", json
    )
