"""Runs the checks at intervals beside a server, each in a process of its own, and keeps their last results.

A check uses a core for seconds and reads whole columns. In the server's process it would compete with requests for the
interpreter's lock, and running out of memory would end the server. So each check is the command that a person would
type, at a lower priority, and its figures are the JSON report that the command writes.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from feature_repo.table_format import DEFAULT_FORMAT, TableFormat

TIMEOUT_SECONDS = 600
"""After this time a check is killed."""
NICE = 10
"""Added to the niceness of a check's process; a higher one has a lower priority."""
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class WatchedCheck:
    """A command to run at an interval."""

    name: str
    """The check's name on the status page and in metrics."""
    command: tuple[str, ...]
    """The program and its arguments, without `--json FILE`, which is added."""
    every: timedelta
    """Time from the end of one run to the start of the next."""


@dataclass(frozen=True)
class CheckState:
    """The last results of a check. A failed run keeps the figures of the last successful one.

    All fields except `check` are None before the first run.
    """

    check: WatchedCheck
    """The check itself."""
    figures: Mapping[str, Any] | None = None
    """JSON report of the last successful run; None if there was none."""
    refreshed: datetime | None = None
    """Start of the last successful run, with a UTC offset; None if there was none."""
    seconds: float | None = None
    """Duration of the last successful run in seconds; None if there was none."""
    tried: datetime | None = None
    """Start of the last run that has ended, successful or not, with a UTC offset."""
    failure: str | None = None
    """Why the last run failed, in one line; None if it succeeded. A run that reports alarms succeeds."""

    @property
    def breaches(self) -> list[str]:
        """The alarms of the last successful run; empty if there was none."""
        return list(self.figures["breaches"]) if self.figures else []


ReadStates = Callable[[], list[CheckState]]
"""Returns the state of each check, always in the same order."""


class Watcher:
    """Runs checks one after the other in a thread, from `__enter__` until `__exit__`, which stops a running check.

    After `__enter__` every check runs once, in the order given, without waiting for its interval. Only one check runs
    at a time, so one that is due waits for the one that runs. `states` may be called from any thread.

    Args:
        checks: the checks; names must differ.
        clock: returns the current time with its UTC offset.
    """

    def __init__(self, checks: Sequence[WatchedCheck], clock: Callable[[], datetime]) -> None:
        self._states = {check.name: CheckState(check) for check in checks}
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._process: subprocess.Popen[str] | None = None

    def states(self) -> list[CheckState]:
        """Return the state of each check, in the order in which the checks were given. Does not wait for a run."""
        return list(self._states.values())

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            process = self._process
            if process is not None and process.poll() is None:
                process.terminate()
            self._thread.join(POLL_SECONDS)

    def run_check(self, name: str) -> CheckState:
        """Run a check now, in the calling thread, and return its new state.

        A check fails if it writes no JSON report, for example because it was killed after TIMEOUT_SECONDS, or if it
        cannot be started. That is no exception, but the state's `failure`.

        Args:
            name: the check's name; an unknown one raises KeyError.
        """
        state = self._states[name]
        tried, start = self._clock(), time.monotonic()
        figures = None
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "figures.json"
                message, code = self._run_command([*state.check.command, "--json", str(file)])
                with suppress(OSError, ValueError):
                    figures = json.loads(file.read_text())
        except OSError as error:  # a full disk, no memory for another process, a missing program
            message, code = f"{error.filename or state.check.command[0]}: cannot be run: {error.strerror}", 1
        if figures is None:
            state = replace(state, tried=tried, failure=message or f"exit code {code} without a message")
        else:
            seconds = time.monotonic() - start
            state = replace(state, figures=figures, refreshed=tried, seconds=seconds, tried=tried, failure=None)
        self._states[name] = state
        return state

    def _run_command(self, command: Sequence[str]) -> tuple[str, int]:
        """Return the last line that a command writes to standard error, and its exit code."""
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._process = process
        try:
            _, errors = process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"took longer than {TIMEOUT_SECONDS} s and was stopped", process.returncode
        return (errors.strip().splitlines() or [""])[-1], process.returncode

    def _run(self) -> None:
        due = dict.fromkeys(self._states, 0.0)
        while not self._stop.is_set():
            for name, next_run in due.items():
                if time.monotonic() >= next_run and not self._stop.is_set():
                    self.run_check(name)
                    due[name] = time.monotonic() + self._states[name].check.every.total_seconds()
            self._stop.wait(POLL_SECONDS)


def default_checks(
    store: Path,
    every: timedelta,
    *,
    objectives: Path | None = None,
    impressions: Path | None = None,
    table_format: TableFormat = DEFAULT_FORMAT,
) -> list[WatchedCheck]:
    """Return the checks of a deployment: "freshness", "consistency" and "drift", in this order.

    They run at a lower priority if the program `nice` is installed.

    Args:
        store: the deployment's feature_store.yaml.
        every: interval of freshness and consistency. Drift runs at six times the interval.
        objectives: TOML file with freshness objectives; None for none.
        impressions: log of impressions, Parquet or CSV, for the ages of served features in the freshness check; None
            for none.
        table_format: what the user says about the log.
    """
    nice = shutil.which("nice")
    consume = (*((nice, "-n", str(NICE)) if nice else ()), sys.executable, "-m", "consumers.cli")
    options = [f"--objectives={objectives}"] if objectives else []
    options += [f"--impressions={impressions}", *table_format.to_options()] if impressions else []
    return [
        WatchedCheck("freshness", (*consume, "freshness", "--store", str(store), "--slices", *options), every),
        WatchedCheck("consistency", (*consume, "consistency", "--store", str(store)), every),
        WatchedCheck("drift", (*consume, "drift", "--store", str(store)), 6 * every),
    ]
