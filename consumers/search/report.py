"""The report of `consume search-report`: each part of a search alone, their sum, and tuned BM25, on judged queries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from consumers.report_json import report_to_json
from consumers.search import evaluation
from consumers.search.evaluation import CutoffQuality, JudgedQuery
from consumers.search.scoring import DEFAULT_WEIGHTS, PARTS
from feature_repo.errors import InvalidInputError
from feature_repo.evaluation.average_precision import CUT
from feature_repo.exported.encoder import ExportedEncoder
from feature_repo.index.product_index import ProductIndex

TUNED, SUM, CALIBRATED = "BM25, tuned", "sum", "sum, calibrated"
"""Names of rows; CALIBRATED has the weights of a calibration, SUM the default ones."""
GRID = tuple((k1, b) for k1 in (0.3, 0.8, 1.2, 2.0) for b in (0.0, 0.2, 0.4, 0.6, 0.75))


@dataclass(frozen=True)
class SearchRow:
    """Mean average precision of one way to rank."""

    name: str
    mean: float
    interval: tuple[float, float]
    by_kind: dict[str, float]
    over_baseline: float
    """Mean difference to TUNED."""
    over_baseline_interval: tuple[float, float]


@dataclass(frozen=True)
class SearchReport:
    """How well each way to rank finds what fits."""

    encoder_version: str
    queries: dict[str, int]
    """Number of queries by kind."""
    tuned: tuple[float, float]
    """k1 and b of TUNED."""
    rows: tuple[SearchRow, ...]
    weights: tuple[dict[str, float], ...]
    """Of CALIBRATED, one for each half of the queries; empty where nothing could be fitted."""
    cutoffs: tuple[CutoffQuality, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the report as JSON, with the field names as keys; an undefined figure is null."""
        return report_to_json(self)


def report_search(
    index: ProductIndex,
    encoder: ExportedEncoder,
    queries: Sequence[JudgedQuery],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> SearchReport:
    """Measure each way to rank on some queries, at least one.

    The weights and cut-offs of CALIBRATED are fitted on the other half of the queries than they are measured on; k1 and
    b of TUNED are chosen on the queries themselves.

    Raises:
        InvalidInputError: a query cannot be understood.
    """
    scored = evaluation.score_queries(index, encoder, queries)
    tuned, baseline = evaluation.tune_keywords(index, scored, GRID)
    values = {TUNED: baseline}
    for part, scores in evaluation.list_part_scores(scored).items():
        values[part] = evaluation.evaluate_scores(scored, scores)
    values[SUM] = evaluation.evaluate_scores(scored, [one.scored.combine(DEFAULT_WEIGHTS) for one in scored])
    notes, weights, cutoffs = [], [], []
    try:
        fitted = evaluation.fit_by_halves(index.encoder_version, scored, seed)
        values[CALIBRATED] = evaluation.evaluate_scores(
            scored, [one.scored.combine(own.weights) for one, own in zip(scored, fitted, strict=True)]
        )
        weights = [dict(one) for one in {id(own): own.weights for own in fitted}.values()]
        cutoffs = evaluation.measure_cutoffs(scored, fitted)
    except InvalidInputError as error:
        notes.append(f"not calibrated: {error}")
    kinds = np.array([query.kind for query in queries])
    intervals = evaluation.draw_intervals(values, replicates, seed)
    gains = evaluation.draw_intervals({name: one - baseline for name, one in values.items()}, replicates, seed)
    rows = [
        SearchRow(
            name,
            float(np.nanmean(one)),
            intervals[name],
            {kind: _mean_or_nan(one[kinds == kind]) for kind in sorted(set(kinds.tolist()))},
            float(np.nanmean(one - baseline)),
            gains[name],
        )
        for name, one in values.items()
    ]
    counts = {kind: int((kinds == kind).sum()) for kind in sorted(set(kinds.tolist()))}
    return SearchReport(index.encoder_version, counts, tuned, tuple(rows), tuple(weights), tuple(cutoffs), tuple(notes))


def render_tables(report: SearchReport) -> Group:
    """Return the report as tables for a terminal."""
    kinds = list(report.queries) if len(report.queries) > 1 else []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("ranked by", no_wrap=True)
    for heading in (f"AP@{CUT}", "over tuned BM25", *kinds):
        table.add_column(heading, justify="right")
    for row in report.rows:
        table.add_row(
            row.name,
            f"{row.mean:.3f} [{row.interval[0]:.3f}, {row.interval[1]:.3f}]",
            ""
            if row.name == TUNED
            else f"{row.over_baseline:+.3f} [{row.over_baseline_interval[0]:+.3f}, "
            f"{row.over_baseline_interval[1]:+.3f}]",
            *(f"{row.by_kind[kind]:.3f}" for kind in kinds),
        )
    counts = ", ".join(f"{count} {kind}".strip() for kind, count in report.queries.items())
    parts: list[Table | Text] = [
        Text(f"{report.encoder_version}: {counts} queries; BM25 with k1 {report.tuned[0]}, b {report.tuned[1]}"),
        table,
    ]
    for weights in report.weights:
        parts.append(Text("weights: " + ", ".join(f"{part} {weights[part]:.2f}" for part in PARTS)))
    if report.cutoffs:
        cut = Table(title="at the cut-off", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        cut.add_column("category")
        for heading in ("returned", "precision", "recall"):
            cut.add_column(heading, justify="right")
        for one in report.cutoffs:
            cut.add_row(one.category, f"{one.returned:,}", f"{one.precision:.2f}", f"{one.recall:.2f}")
        parts.append(cut)
    parts += [Text(note) for note in report.notes]
    parts.append(Text("[..] 95% bootstrap interval over queries; weights and cut-offs from the other half of them"))
    return Group(*parts)


def _mean_or_nan(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
