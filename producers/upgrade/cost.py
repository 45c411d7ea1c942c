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
from producers.embeddings.existing_rows import BACKFILL
from producers.upgrade import versions

RUNS_READ = 10_000
"""Latest runs of the run log whose rates are used."""
RUNS_PER_RATE = 5
"""Latest runs of a step from which its rate is computed, as their median."""
MIN_ROWS_SHARE = 0.1
"""Runs with fewer rows than this share of the largest run are left out: most of their time is their start."""
REUSING_SHARE = 0.01
"""A run of the embeddings that encodes fewer contents than this share of its rows tells what a row costs."""
ENCODING = "encoding"
"""Name of the seconds per content that is passed to the encoder, beside those of a row."""
ROW_COUNTS = {
    versions.EMBEDDINGS: "rows",
    BACKFILL: "rows",
    "tags": "tagged",
    "codes": "added",
    "interests": "added",
    "neighbours": "added",
    versions.ONLINE: "rows",
}
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
    bytes: int | None
    """On disk, at the table's bytes per row; None for the online store."""

    def __str__(self) -> str:
        seconds = "unknown time, no run has written rows yet" if self.seconds is None else f"{self.seconds:,.0f} s"
        size = "" if self.bytes is None else f", {self.bytes / 1e6:,.1f} MB"
        return f"  {self.step}: {self.rows:,} rows, {seconds}{size}"


def estimate(
    settings: Settings, embeddings: EmbeddingEstimate, production_version: str, encoder_version: str
) -> list[StepCost]:
    """Return the cost of each step, in the order of the steps; steps without rows are left out.

    The rows of a derived table, and those online, are those of the version in production minus those that the candidate
    has already.

    Args:
        settings: the deployment.
        embeddings: what `produce embeddings` would do.
        production_version: the version in production.
        encoder_version: the candidate.
    """
    rates = read_rates(run_log.read_last_runs(settings, RUNS_READ))
    costs = [
        StepCost(
            versions.EMBEDDINGS,
            embeddings.rows,
            _estimate_encoding(rates, embeddings.rows, embeddings.images + embeddings.titles),
            _estimate_bytes(settings.table(schema.EMBEDDING_TABLE), embeddings.rows),
        )
    ]
    both = (production_version, encoder_version)
    for table, step in versions.STEP_OF_TABLE.items():
        rows, done = (versions.count_rows(settings, table, version) for version in both)
        missing = max(0, rows - done)
        seconds = rates[step] * missing if step in rates else None
        costs.append(StepCost(step, missing, seconds, _estimate_bytes(settings.table(table), missing)))
    online = versions.count_online_rows(settings, production_version)
    seconds = rates[versions.ONLINE] * online if versions.ONLINE in rates else None
    costs.append(StepCost(versions.ONLINE, online, seconds, None))
    return [cost for cost in costs if cost.rows]


def read_rates(runs: list[RunRecord]) -> Mapping[str, float]:
    """Return the seconds per row of each step, and those per encoded content: medians of the latest runs of some size.

    What a row of vectors costs is known from runs that encoded next to nothing, such as one on kept outputs of towers.
    What is left of the other runs is the cost of their contents. Runs that did not end well are left out.

    Args:
        runs: records of the run log, newest first.

    Returns:
        Step or ENCODING to seconds; without a run that tells, the name is missing.
    """
    by_step: dict[str, list[tuple[int, int, float]]] = {}
    for run in runs:
        rows = run.counts.get(ROW_COUNTS.get(run.step, ""), 0)
        if run.ending == run_log.DONE and run.ended is not None and rows:
            contents = run.counts.get("pictures", 0) + run.counts.get("titles", 0)
            step = versions.EMBEDDINGS if run.step == BACKFILL else run.step
            by_step.setdefault(step, []).append((rows, contents, (run.ended - run.started).total_seconds()))
    rates = {}
    for step, found in by_step.items():
        large = [run for run in found if run[0] >= MIN_ROWS_SHARE * max(rows for rows, _, _ in found)]
        reusing = [run for run in large if run[1] <= REUSING_SHARE * run[0]]
        if reusing:
            rates[step] = median(seconds / rows for rows, _, seconds in reusing[:RUNS_PER_RATE])
        encoding = [run for run in large if run[1] > REUSING_SHARE * run[0]]
        if encoding:
            row = rates.get(step, 0.0)
            rates[ENCODING] = median(
                max(0.0, seconds - row * rows) / contents for rows, contents, seconds in encoding[:RUNS_PER_RATE]
            )
    return rates


def _estimate_encoding(rates: Mapping[str, float], rows: int, contents: int) -> float | None:
    """Return the seconds of encoding contents and writing rows of vectors; None if the rates do not tell."""
    if contents and ENCODING not in rates:
        return None
    if versions.EMBEDDINGS not in rates and contents < rows:  # the rate of contents has the cost of rows in it
        return None
    return rates.get(versions.EMBEDDINGS, 0.0) * rows + rates.get(ENCODING, 0.0) * contents


def _estimate_bytes(path: Location, rows: int) -> int:
    """Return the bytes of some rows at a table's bytes per row; 0 if it has no rows."""
    if not delta.exists(path):
        return 0
    fragments = list(delta.open_dataset(path).get_fragments())
    stored = sum(fragment.count_rows() for fragment in fragments)
    size = sum(fragment.filesystem.get_file_info(fragment.path).size for fragment in fragments)
    return round(size / stored * rows) if stored else 0
