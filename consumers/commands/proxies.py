"""`consume proxies`."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from consumers.commands import outcome
from feature_repo import console
from feature_repo.console import JsonOption


def proxies(
    figures: Annotated[
        list[Path], typer.Argument(help="Files that `consume lift --json` wrote, one for each encoder.")
    ],
    json: JsonOption = None,
) -> None:
    """Compare encoders by figures that need no ranker, and by the lift that a ranker had with them.

    Next-click hit rate, same-product recall and tag F1 of a new encoder can be measured before a ranker is trained.
    The table shows whether they predicted the lift of earlier encoders; with 8 encoders or more it has a rank
    correlation too. A second figure ("new") is of products that the encoder was not trained on.
    """
    from consumers.ranking.proxies import MIN_ENCODERS, NAMES, UNSEEN, correlate_with_lift, read_points

    points = read_points(figures)
    correlations = correlate_with_lift(points)
    table = Table()
    table.add_column("encoder", overflow="fold")  # encoder versions differ at their end, which an ellipsis would hide
    for name in NAMES:
        table.add_column(name.replace("_", " "))
    table.add_column("lift", no_wrap=True)
    table.add_column("95% interval", no_wrap=True)
    for point in points:
        cells = [describe(point[name], point.get(name + UNSEEN)) for name in NAMES]
        low, high = point["ci95"]
        table.add_row(str(point["encoder"]), *cells, f"{point['lift']:+.4f}", f"[{low:+.4f}, {high:+.4f}]")
    console.print_tables(table)
    summary = ", ".join(f"{name} {value:+.2f}" for name, value in correlations.items())
    typer.echo(f"rank correlation with the lift: {summary or f'none; needs {MIN_ENCODERS} encoders'}")
    content = {"points": points, "rank_correlation": correlations}
    outcome.write_figures(dumps(content, indent=1, ensure_ascii=False) + "\n", json)


def describe(value: float | None, unseen: float | None) -> str:
    """Return a figure, with that of products that the encoder has not seen if there is one."""
    return ("–" if value is None else f"{value:.3f}") + ("" if unseen is None else f"\nnew {unseen:.3f}")
