"""How a check ends: its figures written down, its breaches said, exit code 1 if there are any."""

from collections.abc import Sequence
from pathlib import Path

import typer


def end(figures: str, json: Path | None, breaches: Sequence[str]) -> None:
    """Write the figures to `json` where one is named, and say each breach on standard error.

    Raises:
        typer.Exit: with code 1, if there is a breach.
    """
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(figures)
        typer.echo(f"figures: {json}")
    for breach in breaches:
        typer.secho(breach, fg="red", err=True)
    if breaches:
        raise typer.Exit(1)
