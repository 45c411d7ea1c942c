"""The cost of an upgrade: rows and bytes to write, and the seconds at the rates of earlier runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from feature_repo import run_log, schema
from feature_repo.config import Settings
from feature_repo.location import Location
from feature_repo.offline import delta
from feature_repo.run_log import RunRecord
from producers.embeddings.estimate import EmbeddingEstimate
from producers.upgrade import versions

RUNS_READ = 10_000
"""Latest runs of the run log whose rates are used."""
RUNS_PER_RATE = 5
"""Latest runs of a step from which its rate is computed, as their median."""
ROW_COUNTS = {"embeddings": "rows", "tags": "tagged", "codes": "added", "interests": "added", "neighbours": "added"}
"""The count in the run log that says how many rows a step has written."""


@dataclass(frozen=True)
class StepCost:
    """The cost of one step."""

    step: str
    """The command."""
    rows: int
    """Rows to write."""
    seconds: float | None
    """At the rate of earlier runs; None if none has written rows."""
    bytes: int
    """On disk, at the table's bytes per row."""

    def __str__(self) -> str:
        seconds = "unknown time, no run has written rows yet" if self.seconds is None else f"{self.seconds:,.0f} s"
        return f"  {self.step}: {self.rows:,} rows, {seconds}, {self.bytes / 1e6:,.1f} MB"


def estimate(
    settings: Settings, embeddings: EmbeddingEstimate, production_version: str, encoder_version: str
) -> list[StepCost]:
    """Return the cost of each step, in the order of the steps; steps without rows are left out.

    The rows of a derived table are those of the version in production minus those that the candidate has already.

    Args:
        settings: the deployment.
        embeddings: what `produce embeddings` would do.
        production_version: the version in production.
        encoder_version: the candidate.
    """
    rates = read_rates(run_log.read_last_runs(settings, RUNS_READ))
    rows = {versions.EMBEDDINGS: (schema.EMBEDDING_TABLE, embeddings.rows)}
    for table, step in versions.STEP_OF_TABLE.items():
        missing = [versions.count_rows(settings, table, version) for version in (production_version, encoder_version)]
        rows[step] = (table, max(0, missing[0] - missing[1]))
    return [
        StepCost(
            step,
            count,
            None if step not in rates else rates[step] * count,
            _estimate_bytes(settings.table(table), count),
        )
        for step, (table, count) in rows.items()
        if count
    ]


def read_rates(runs: list[RunRecord]) -> Mapping[str, float]:
    """Return the seconds per row of each step: the median of its latest runs that have written rows.

    The time of a run includes encoding, so the rate holds for runs that encode as large a share of their rows. Runs
    that did not end well are left out.

    Args:
        runs: records of the run log, newest first.
    """
    seconds: dict[str, list[float]] = {}
    for run in runs:
        rows = run.counts.get(ROW_COUNTS.get(run.step, ""), 0)
        if run.ending == run_log.DONE and run.ended is not None and rows:
            seconds.setdefault(run.step, []).append((run.ended - run.started).total_seconds() / rows)
    return {step: median(values[:RUNS_PER_RATE]) for step, values in seconds.items()}


def _estimate_bytes(path: Location, rows: int) -> int:
    """Return the bytes of some rows at a table's bytes per row; 0 if it has no rows."""
    if not delta.exists(path):
        return 0
    fragments = list(delta.open_dataset(path).get_fragments())
    stored = sum(fragment.count_rows() for fragment in fragments)
    size = sum(fragment.filesystem.get_file_info(fragment.path).size for fragment in fragments)
    return round(size / stored * rows) if stored else 0
