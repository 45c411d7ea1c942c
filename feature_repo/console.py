"""What the two command lines share: options, errors in one line, progress bars on standard error."""

import os
import sys
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from feature_repo import config
from feature_repo.errors import UsageError, VitrineError

Item = TypeVar("Item")

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar=config.ENVIRONMENT_VARIABLE,
        help="The deployment's feature_store.yaml.",
        show_default="feature_repo/feature_store.yaml",
    ),
]
JsonOption = Annotated[Path | None, typer.Option(dir_okay=False, help="Write the figures as JSON to this file.")]

console = Console(stderr=True)


def run(app: typer.Typer) -> None:
    """Run a command line; an error that a user can mend becomes one line on standard error.

    Exit code 2 for what was typed, 1 for what was found: a table, a checkpoint, a file that may not be written.
    """
    # Threads that spin while they wait make torch 15 times slower as soon as another process wants a core. OpenMP reads
    # this once, when torch is first imported, and commands import it only when they need it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a letter that the terminal's encoding lacks becomes a question mark
            stream.reconfigure(errors="replace")
    try:
        app()
    except VitrineError as error:
        _say(str(error))
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:  # no permission, a full disk, a folder where a file was named
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(1)


def _say(error: str) -> None:
    """One line, whatever bytes of a broken file the error quotes: none of them commands the terminal."""
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(error.split()))
    typer.secho(f"error: {line}", fg="red", err=True)


def progress_bar() -> Progress:
    """A progress bar on standard error: `with progress_bar() as bar: task = bar.add_task("encode", total=n)`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items` under a progress bar."""
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)
