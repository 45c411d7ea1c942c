"""The checks, run again and again beside a service: each in a process of its own, and what it found last.

A check takes seconds of a core and reads whole columns. In the service's own process it would take turns with requests
at the interpreter's lock, and one that runs out of memory would take the service with it. So each is the command that a
person would type, at a lower priority, and its figures are the JSON that the command writes.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

LONGEST = 600
"""Seconds after which a check is given up."""
NICE = 10
STEP = 0.2
"""Seconds between looks at whether it is time."""


@dataclass(frozen=True)
class Check:
    """One command, and how often."""

    name: str
    command: tuple[str, ...]
    """Without `--json`."""
    every: timedelta


@dataclass(frozen=True)
class State:
    """What a check found last. A failure leaves the figures of before, with their own time."""

    check: Check
    figures: Mapping[str, Any] | None = None
    refreshed: datetime | None = None
    """When the figures were taken."""
    seconds: float | None = None
    """How long it took."""
    tried: datetime | None = None
    failure: str | None = None
    """Why the last try gave no figures; None if it did."""

    @property
    def breaches(self) -> list[str]:
        """What it warns of; none where it never ended well."""
        return list(self.figures["breaches"]) if self.figures else []


States = Callable[[], list[State]]
"""Gives what each check found last."""


class Watcher:
    """Runs checks in turn, in one thread. Threads may read what they found.

    Args:
        clock: the time, with a zone, that results are stamped with.
    """

    def __init__(self, checks: Sequence[Check], clock: Callable[[], datetime]) -> None:
        self._states = {check.name: State(check) for check in checks}
        self._clock = clock
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._process: subprocess.Popen[str] | None = None

    def states(self) -> list[State]:
        """What each check found last."""
        return list(self._states.values())

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        while self._thread.is_alive():
            process = self._process
            if process is not None and process.poll() is None:
                process.terminate()
            self._thread.join(STEP)

    def refresh(self, name: str) -> State:
        """Run a check now, and give back what is known of it then."""
        state = self._states[name]
        tried, began = self._clock(), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "figures.json"
            said, code = self._said([*state.check.command, "--json", str(file)])
            try:
                figures = json.loads(file.read_text())
            except (OSError, ValueError):
                figures = None
        if figures is None:
            state = replace(state, tried=tried, failure=said or f"ended with exit code {code} and said nothing")
        else:
            took = time.monotonic() - began
            state = replace(state, figures=figures, refreshed=tried, seconds=took, tried=tried, failure=None)
        self._states[name] = state
        return state

    def _said(self, command: Sequence[str]) -> tuple[str, int]:
        """The last line that a command says on standard error, and its exit code."""
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._process = process
        try:
            _, errors = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"took longer than {LONGEST} s and was stopped", process.returncode
        return (errors.strip().splitlines() or [""])[-1], process.returncode

    def _run(self) -> None:
        due = dict.fromkeys(self._states, 0.0)
        while not self._ending.is_set():
            for name, moment in due.items():
                if time.monotonic() >= moment and not self._ending.is_set():
                    self.refresh(name)
                    due[name] = time.monotonic() + self._states[name].check.every.total_seconds()
            self._ending.wait(STEP)


def checks(
    store: Path,
    every: timedelta,
    *,
    objectives: Path | None = None,
    impressions: Path | None = None,
) -> list[Check]:
    """Freshness, consistency and drift of a deployment.

    Args:
        every: between two looks at freshness and consistency; drift, which changes by the day, six times as long.
    """
    nice = shutil.which("nice")
    consume = (*((nice, "-n", str(NICE)) if nice else ()), sys.executable, "-m", "consumers.cli")
    wanted = ("--objectives", str(objectives)) if objectives else ()
    shown = ("--impressions", str(impressions)) if impressions else ()
    return [
        Check("freshness", (*consume, "freshness", "--store", str(store), "--slices", *wanted, *shown), every),
        Check("consistency", (*consume, "consistency", "--store", str(store)), every),
        Check("drift", (*consume, "drift", "--store", str(store)), 6 * every),
    ]
