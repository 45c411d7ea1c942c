"""Output files and exit codes that several commands share."""

from collections.abc import Sequence
from pathlib import Path

import typer

from feature_repo.files.atomic_write import write_text

EXIT_UNKNOWN = 3
"""Exit code of a check that had nothing to check, as monitoring plug-ins use it."""


def write_figures(figures: str, json: Path | None) -> None:
    """Write figures to a file and print its name on standard output.

    Args:
        figures: the figures as JSON text; written as it is, no newline is added.
        json: file to write; an existing one is overwritten, missing folders are created. None does nothing.
    """
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        write_text(json, figures)
        typer.echo(f"figures: {json}")


def finish_check(figures: str, json: Path | None, breaches: Sequence[str], no_data: str | None = None) -> None:
    """Write the figures of a check, print its breaches to standard error, and exit with the matching code.

    Returns normally, for exit code 0, if there are no breaches and something was checked. The figures are written
    first, whatever the outcome.

    Args:
        figures: the figures as JSON text.
        json: file to write them to, also if there are breaches; an existing one is overwritten. None writes no file.
        breaches: one line for each limit that is exceeded.
        no_data: why nothing could be checked; printed to standard error unless there are breaches. None if something
            was.

    Raises:
        typer.Exit: with code 1 if there is a breach, else with EXIT_UNKNOWN if nothing could be checked.
    """
    write_figures(figures, json)
    for breach in breaches:
        typer.secho(breach, fg="red", err=True)
    if breaches:
        raise typer.Exit(1)
    if no_data is not None:
        typer.secho(f"nothing was checked: {no_data}", fg="yellow", err=True)
        raise typer.Exit(EXIT_UNKNOWN)
