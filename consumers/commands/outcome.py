"""How a check ends: its figures written down, its breaches said, an exit code that tells calm from blindness."""

from collections.abc import Sequence
from pathlib import Path

import typer

UNKNOWN = 3
"""As monitoring plug-ins end where they cannot tell: all may be well, or not."""


def end(figures: str, json: Path | None, breaches: Sequence[str], blind: str | None = None) -> None:
    """Write the figures to `json` where one is named, and say each breach on standard error.

    Args:
        blind: why nothing at all could be judged, if so.

    Raises:
        typer.Exit: with code 1, if there is a breach; else with UNKNOWN, if nothing could be judged.
    """
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(figures)
        typer.echo(f"figures: {json}")
    for breach in breaches:
        typer.secho(breach, fg="red", err=True)
    if breaches:
        raise typer.Exit(1)
    if blind is not None:
        typer.secho(f"nothing was judged: {blind}", fg="yellow", err=True)
        raise typer.Exit(UNKNOWN)
