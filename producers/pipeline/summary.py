"""What a day did: one line for each step, from the run log."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from feature_repo.durations import format_duration

DONE_BEFORE = "done before"
"""The ending of a step that an earlier call of the same day completed."""


@dataclass(frozen=True)
class StepOutcome:
    """The outcome of one step or check."""

    name: str
    ending: str
    """An ending of `run_log.RunRecord`, or DONE_BEFORE."""
    seconds: float
    """Duration; 0 if it was done before."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Row counts of the step, as its own runs in the run log have them; their sum if there are several."""
    quarantined: Mapping[str, int] = field(default_factory=dict)
    """Refused, dropped and unusable values by reason."""
    error: str | None = None
    """Why it failed; None if it did not."""

    def __str__(self) -> str:
        parts = [
            ", ".join(f"{rows:,} {name.replace('_', ' ')}" for name, rows in self.counts.items()),
            self.error or "",
        ]
        took = "" if self.ending == DONE_BEFORE else f" after {self.seconds:.1f} s"
        lines = ["; ".join(part for part in (f"{self.name}: {self.ending}{took}", *parts) if part)]
        return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in self.quarantined.items()])


@dataclass(frozen=True)
class DaySummary:
    """What one call of `produce day` did."""

    steps: tuple[StepOutcome, ...]
    """The steps up to the first that failed."""
    checks: tuple[StepOutcome, ...]
    """The checks; none if a step failed."""
    seconds: float
    """Duration of the call."""
    remaining: tuple[str, ...]
    """The names of the steps that were not reached."""
    inputs_written: datetime | None
    """When the newest of the input files was written; None without any."""
    ended: datetime
    """When the last step ended, in UTC."""
    note: str | None = None
    """What the day does not do for the other version of an encoder upgrade; None without one."""

    @property
    def failed_steps(self) -> list[StepOutcome]:
        """The step that failed, if one did."""
        return [step for step in self.steps if step.error is not None]

    @property
    def failed_checks(self) -> list[StepOutcome]:
        """The checks that failed."""
        return [check for check in self.checks if check.error is not None]

    def to_json(self) -> str:
        """Return all fields as JSON, times in ISO 8601."""
        return json.dumps(asdict(self), default=lambda time: time.isoformat(), ensure_ascii=False, indent=2) + "\n"

    def __str__(self) -> str:
        lines = [str(outcome) for outcome in (*self.steps, *self.checks)]
        if self.failed_steps:
            lines.append(f"not run: {', '.join(self.remaining) or 'nothing else'}; the same command goes on from here")
        elif self.inputs_written is not None:
            late = max(timedelta(0), self.ended - self.inputs_written)
            lines.append(f"all steps ended well, {format_duration(late)} after the newest input was written")
        lines += [] if self.note is None else [self.note]
        return "\n".join([*lines, f"the day took {self.seconds:.1f} s"])
