"""How a command ends that found figures: written down, and of a check an exit code that tells calm from blindness."""

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from feature_repo.errors import VitrineError

EXIT_UNKNOWN = 3
"""As monitoring plug-ins end where they cannot tell: all may be well, or not."""


def prepare_output_files(*files: Path | None) -> None:
    """Make the folders of files that are written at a long command's end: what is wrong with them is said before it.

    Raises:
        VitrineError: one cannot be written.
    """
    for file in filter(None, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise VitrineError(f"{file}: may not be written; name another file, or change who may")


def write_figures(figures: str, json: Path | None) -> None:
    """Write figures to a file where one is named, and say so."""
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(figures)
        typer.echo(f"figures: {json}")


def finish_check(figures: str, json: Path | None, breaches: Sequence[str], blind: str | None = None) -> None:
    """Write the figures to `json` where one is named, and say each breach on standard error.

    Args:
        blind: why nothing at all could be judged, if so.

    Raises:
        typer.Exit: with code 1, if there is a breach; else with UNKNOWN, if nothing could be judged.
    """
    write_figures(figures, json)
    for breach in breaches:
        typer.secho(breach, fg="red", err=True)
    if breaches:
        raise typer.Exit(1)
    if blind is not None:
        typer.secho(f"nothing was judged: {blind}", fg="yellow", err=True)
        raise typer.Exit(EXIT_UNKNOWN)
