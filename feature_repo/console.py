"""Shared by both command lines: options, one-line errors, progress on standard error."""

import errno
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn

from feature_repo import config
from feature_repo.errors import UsageError, VitrineError
from feature_repo.files.atomic_write import prepare_output_files

Item = TypeVar("Item")

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar=config.ENVIRONMENT_VARIABLE,
        help="Path of the deployment's feature_store.yaml.",
        show_default="feature_repo/feature_store.yaml, or feature_store.yaml",
    ),
]

EncoderVersionOption = Annotated[
    str | None, typer.Option(help="The encoder version whose vectors to use.", show_default="the one in production")
]
MAX_LOST_SHARE = 0.2
"""Default of MaxLostShareOption, which `feature_repo.offline.lost_share` applies."""
MaxLostShareOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Largest share of a column's values that may be lost. If more are lost, the rest is written and the exit "
        "code is 1.",
    ),
]


def _prepare_json(file: Path | None) -> Path | None:
    """Check that the file can be written before the work begins."""
    prepare_output_files(file)
    return file


JsonOption = Annotated[
    Path | None,
    typer.Option(dir_okay=False, callback=_prepare_json, help="Also write the figures as JSON to this file."),
]

console = Console(stderr=True)
PLAIN_INTERVAL_SECONDS = 10.0
"""Seconds between the lines of progress where standard error is not a terminal."""


class LogFormat(StrEnum):
    """How log records and errors are written to standard error: as lines of text, or as one JSON object a line.

    An object has `time` (ISO 8601 in UTC), `level`, `logger` and `message`, all of them text.
    """

    TEXT = "text"
    JSON = "json"


class _StandardErrorHandler(logging.Handler):
    """Writes each record as one line to standard error."""

    log_format = LogFormat.TEXT

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. `sys.stderr` is looked up each time, because progress bars replace it while they show."""
        text = self.format(record)
        if self.log_format is LogFormat.JSON:
            time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
            fields = {"time": time, "level": record.levelname.lower(), "logger": record.name, "message": text}
            text = json.dumps(fields, ensure_ascii=False)
        sys.stderr.write(text + "\n")


@dataclass(frozen=True)
class LogOptions:
    """The options of `configure` that say what is logged and how, for the processes that a command starts."""

    verbose: bool = False
    quiet: bool = False
    log_format: LogFormat = LogFormat.TEXT

    def apply(self) -> None:
        """Log as these options say, in this process."""
        global _options
        _options = self
        console.quiet = self.quiet or self.log_format is LogFormat.JSON
        _handler.log_format = self.log_format
        root = logging.getLogger()
        root.addHandler(_handler)  # has no effect if it was added before
        root.setLevel(logging.ERROR if self.quiet else logging.WARNING)
        for package in ("feature_repo", "producers", "consumers"):  # other libraries stay at WARNING
            logging.getLogger(package).setLevel(logging.INFO if self.verbose else logging.NOTSET)


_handler = _StandardErrorHandler()
_options = LogOptions()


def current_log_options() -> LogOptions:
    """Return what `configure` was called with; the defaults if it was not."""
    return _options


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("vitrine"))
        raise typer.Exit


def configure(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log progress in detail (level INFO).")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only, and no progress bars.")] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(help="Format of log records and errors on standard error; json writes one object a line."),
    ] = LogFormat.TEXT,
) -> None:
    """Apply the options that precede a command. Both command lines register this function as their callback.

    Results go to standard output and are never suppressed.

    Args:
        version: unused here; `--version` exits before.
        verbose: log this project's records from level INFO on instead of WARNING.
        quiet: log only records of level ERROR and show no progress bars.
        log_format: how records and errors are written; JSON also hides the progress bars.

    Raises:
        UsageError: both --verbose and --quiet are given.
    """
    del version
    if verbose and quiet:
        raise UsageError("--verbose and --quiet exclude each other; give one of them")
    LogOptions(verbose, quiet, log_format).apply()


_REPAIRS = {
    "free disk space, or raise the limit, and run this again": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "change its permissions, or name another path": (errno.EACCES, errno.EPERM, errno.EROFS),
    "name another path, or remove what is there": (errno.EEXIST, errno.ENOTEMPTY),
    "correct the path": (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
}
REPAIRS = {number: repair for repair, numbers in _REPAIRS.items() for number in numbers}
"""Number of an error of the operating system -> what to do."""
_MAY_BE_EMPTY = ("--access-log",)
"""Options whose value may be empty."""


def run_command_line(app: typer.Typer) -> None:
    """Run a command line, and exit with one line on standard error for an error that the user can repair.

    The exit code is 2 for an invalid option (UsageError, or refused by typer) and 1 for any other VitrineError or
    OSError. Every other exception is raised as it is.

    Args:
        app: the command line; it reads `sys.argv`.

    Raises:
        SystemExit: the command has ended; the code is 0 if it succeeded. This function does not return.
    """
    # Waiting threads that spin make torch 15 times slower as soon as another process needs a core. OpenMP reads this
    # variable once, when torch is first imported; commands import torch only when they need it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # characters outside of the terminal's encoding become ?
            stream.reconfigure(errors="replace")
    try:
        _refuse_empty_values(sys.argv[1:])
        app()
    except VitrineError as error:
        _print_error(str(error))
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:  # no permission, a full disk, a folder instead of a file
        line = f"{error.filename2 or error.filename}: {error.strerror}" if error.filename else str(error)
        _print_error(f"{line}; {REPAIRS[error.errno]}" if error.errno in REPAIRS else line)
        sys.exit(1)


def _refuse_empty_values(arguments: list[str]) -> None:
    """Raise UsageError if an option has an empty value, which would be the current folder where a path is expected."""
    given = [argument.partition("=")[::2] for argument in arguments if argument.startswith("--") and "=" in argument]
    given += [(name, value) for name, value in pairwise(arguments) if name.startswith("-")]
    for name, value in given:
        if not value and name not in _MAY_BE_EMPTY:
            raise UsageError(f"the value of {name} is empty, perhaps by a shell variable that is not set; give a value")


def print_notice(message: str) -> None:
    """Print a message on standard error, also with --quiet; as a JSON object if that is the log's format."""
    if _handler.log_format is LogFormat.JSON:
        _handler.handle(logging.LogRecord(__name__, logging.INFO, __file__, 0, message, None, None))
    else:
        typer.echo(message, err=True)


def _print_error(message: str) -> None:
    """Print a message on one line, with a replacement character for each control character it may quote."""
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(message.split()))
    if _handler.log_format is LogFormat.JSON:
        logging.getLogger(__name__).error(line)
    else:
        typer.secho(f"error: {line}", fg="red", err=True)


def print_tables(*tables: RenderableType) -> None:
    """Print tables to standard output. `[red]` and `:smile:` in their texts are text, and no markup of rich."""
    Console(markup=False, emoji=False).print(*tables)


class PlainProgress(Progress):
    """Progress as plain lines, for logs: one line for each unfinished task every PLAIN_INTERVAL_SECONDS.

    A command that is faster prints none. Tasks are added and updated as with a progress bar.
    """

    def __init__(self) -> None:
        super().__init__(console=console, disable=True)
        self._ended = threading.Event()
        self._printer = threading.Thread(target=self._print_lines, daemon=True)

    def start(self) -> None:
        """Start to print; later calls do nothing."""
        if self._printer.ident is None:
            self._printer.start()

    def stop(self) -> None:
        """Print nothing more."""
        self._ended.set()

    def _print_lines(self) -> None:
        start = time.monotonic()
        while not self._ended.wait(PLAIN_INTERVAL_SECONDS):
            for task in self.tasks:
                # A task of several stages is finished for rich after the first, if the next has the same total.
                if task.visible and (task.total is None or task.completed < task.total):
                    line = format_progress(task, time.monotonic() - start)
                    console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def format_progress(task: Task, seconds: float) -> str:
    """Return a task's progress as one line, such as `encode: 1,200 of 8,000 after 30 s`.

    Args:
        task: a task; without a total and without any completed step, no numbers are given.
        seconds: time since the start.
    """
    done = f" {task.completed:,.0f}" if task.completed or task.total is not None else ""
    total = f" of {task.total:,.0f}" if task.total is not None else ""
    return f"{task.description}:{done}{total} after {seconds:.0f} s"


def make_progress_bar() -> Progress:
    """Create a progress bar on standard error; lines of text, if standard error is not a terminal.

    It shows nothing after `configure` was called with `quiet` or JSON.

    Example: `with make_progress_bar() as bar: task = bar.add_task("encode", total=n)`.
    """
    if not console.is_terminal:
        return PlainProgress()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def show_stages() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows the progress of work in stages, one bar a stage.

    Its arguments are the name of a stage, the number of steps done and their total.
    """
    with make_progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def track_progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items` while a progress bar on standard error shows how many have been yielded.

    Args:
        items: what to yield, in its order.
        description: the text before the bar.
        total: number of items. None takes their length; if they have none, the bar shows no total.
    """
    with make_progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)
