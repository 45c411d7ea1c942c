"""The cost of an upgrade: rows and bytes to write, and the seconds at the rates of earlier runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from feature_repo import run_log, schema
from feature_repo.config import Settings
from feature_repo.index.rows import find_folder
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
"""A run with fewer rows than this share of those of the largest run spends most of its time on its start."""
REUSING_SHARE = 0.01
"""Runs of the embeddings that encode fewer contents than this share of their rows measure the cost of a row."""
ENCODING = "encoding"
"""Name of the seconds per content that is passed to the encoder, beside those of a row."""
ROW_COUNTS = {
    versions.EMBEDDINGS: "rows",
    BACKFILL: "rows",
    "tags": "tagged",
    "codes": "added",
    "interests": "added",
    "neighbours": "added",
    versions.INDEX: "added",
    versions.ONLINE: "rows",
}
"""The count in the run log that says how many rows a step has written."""
UPGRADE = "upgrade"
"""Name in the run log of a command of `produce upgrade`."""
OVERHEAD = "start and planning"
"""What an upgrade takes besides its steps."""


@dataclass(frozen=True)
class StepRate:
    """What the runs of a step took, as a line: `start_seconds + row_seconds * rows`."""

    start_seconds: float
    """0 if no run was small enough to measure it."""
    row_seconds: float

    def estimate(self, rows: int) -> float:
        """Return the seconds that a run would take; without rows it takes its start."""
        return self.start_seconds + self.row_seconds * rows


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
    """On disk, at the table's bytes per row; None for the online store and an index."""

    def __str__(self) -> str:
        seconds = "unknown time, no run has written rows yet" if self.seconds is None else f"{self.seconds:,.0f} s"
        size = "" if self.bytes is None else f", {self.bytes / 1e6:,.1f} MB"
        rows = f"{self.rows:,} rows, " if self.rows else ""
        return f"  {self.step}: {rows}{seconds}{size}"


def estimate(
    settings: Settings, embeddings: EmbeddingEstimate, production_version: str, encoder_version: str
) -> list[StepCost]:
    """Return the cost of each step, in the order of the steps; steps without rows are left out.

    The rows of a derived table, and those online, are those of the version in production minus those that the candidate
    has already. What earlier upgrades took besides their steps is a line of its own.

    Args:
        settings: the deployment.
        embeddings: what `produce embeddings` would do.
        production_version: the version in production.
        encoder_version: the candidate.
    """
    runs = run_log.read_last_runs(settings, RUNS_READ)
    rates = read_rates(runs)
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
        seconds = rates[step].estimate(missing) if step in rates else None
        costs.append(StepCost(step, missing, seconds, _estimate_bytes(settings.table(table), missing)))
    has_index, has_own = (find_folder(settings, version).exists() for version in both)
    others = [(versions.INDEX, embeddings.rows + embeddings.existing)] if has_index and not has_own else []
    others.append((versions.ONLINE, versions.count_online_rows(settings, production_version)))
    for step, rows in others:
        costs.append(StepCost(step, rows, rates[step].estimate(rows) if step in rates else None, None))
    costs = [cost for cost in costs if cost.rows]
    overhead = read_overhead(runs)
    return costs if overhead is None else [*costs, StepCost(OVERHEAD, 0, overhead, None)]


def format_costs(costs: Sequence[StepCost]) -> str:
    """Return a line for each step, and one for all of them."""
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    seconds = f"{sum(known):,.0f} s" + (" and more" if len(known) < len(costs) else "")
    size = sum(cost.bytes or 0 for cost in costs) / 1e6
    return "\n".join(
        [*map(str, costs), f"  in all: {sum(cost.rows for cost in costs):,} rows, {seconds}, {size:,.1f} MB"]
    )


def read_rates(runs: list[RunRecord]) -> Mapping[str, StepRate]:
    """Return the rate of each step, and that of encoded contents: medians of the latest runs.

    The cost of a row of vectors comes from runs that encoded almost nothing, such as those on kept outputs of towers.
    The rest of the time of the other runs is the cost of their contents. Runs that failed are left out.

    Args:
        runs: records of the run log, newest first.

    Returns:
        Step or ENCODING to its rate; without a run that tells, the name is missing.
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
        reusing = [(rows, seconds) for rows, contents, seconds in found if contents <= REUSING_SHARE * rows]
        if reusing:
            rates[step] = _fit_rate(reusing)
        encoding = [run for run in found if run[1] > REUSING_SHARE * run[0]]
        if encoding:
            row = rates.get(step, StepRate(0.0, 0.0))
            left = [(contents, max(0.0, seconds - row.estimate(rows))) for rows, contents, seconds in encoding]
            rates[ENCODING] = _fit_rate(left)
    return rates


def read_overhead(runs: list[RunRecord]) -> float | None:
    """Return what upgrades took besides their steps, in seconds: the median of the latest ones that wrote rows.

    Args:
        runs: records of the run log, newest first.

    Returns:
        None if no upgrade has written rows.
    """
    times = [(run, run.started, run.ended) for run in runs if run.ending == run_log.DONE and run.ended is not None]
    found = []
    for upgrade, began, ended in times:
        if upgrade.step == UPGRADE:
            within = [one for one in times if one[0].step != UPGRADE and began <= one[1] and one[2] <= ended]
            if any(run.step == BACKFILL and run.counts.get("rows") for run, _, _ in within):
                own = (ended - began) - sum((end - start for _, start, end in within), timedelta(0))
                found.append(own.total_seconds())
    return max(0.0, median(found[:RUNS_PER_RATE])) if found else None


def _fit_rate(runs: list[tuple[int, float]]) -> StepRate:
    """Return the rate of runs, each given by its rows, at least 1, and its seconds, the newest first."""
    limit = MIN_ROWS_SHARE * max(rows for rows, _ in runs)
    large = [run for run in runs if run[0] >= limit][:RUNS_PER_RATE]
    small = [run for run in runs if run[0] < limit][:RUNS_PER_RATE]
    start = median(seconds for _, seconds in small) if small else 0.0
    rate = median(max(0.0, seconds - start) / rows for rows, seconds in large)
    return StepRate(median(max(0.0, seconds - rate * rows) for rows, seconds in small) if small else 0.0, rate)


def _estimate_encoding(rates: Mapping[str, StepRate], rows: int, contents: int) -> float | None:
    """Return the seconds of encoding contents and writing rows of vectors; None if the rates do not tell."""
    if contents and ENCODING not in rates:
        return None
    if versions.EMBEDDINGS not in rates and contents < rows:  # the rate of contents has the cost of rows in it
        return None
    writing = rates[versions.EMBEDDINGS].estimate(rows) if versions.EMBEDDINGS in rates else 0.0
    return writing + (rates[ENCODING].estimate(contents) if contents else 0.0)


def _estimate_bytes(path: Location, rows: int) -> int:
    """Return the bytes of some rows at a table's bytes per row; 0 if it has no rows."""
    if not delta.exists(path):
        return 0
    fragments = list(delta.open_dataset(path).get_fragments())
    stored = sum(fragment.count_rows() for fragment in fragments)
    size = sum(fragment.filesystem.get_file_info(fragment.path).size for fragment in fragments)
    return round(size / stored * rows) if stored else 0
