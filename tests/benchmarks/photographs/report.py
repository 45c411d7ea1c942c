"""Paired intervals, and the table PHOTOGRAPHS.md."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.metrics import draw_counts
from tests.benchmarks import harness

TABLE = Path(__file__).parents[1] / "PHOTOGRAPHS.md"
DRAWS = 2000
PATHS = r" --(data|work) \S+"
"""Options that name folders of one machine."""
HEAD = ("set", "what", "other", "assembled", "difference", "of", "note", "command", "commit, date, machine")


@dataclass(frozen=True)
class PairedFigure:
    """One line of PHOTOGRAPHS.md."""

    data: str
    what: str
    other: str
    ours: str
    difference: str
    of: str
    note: str

    def render(self) -> str:
        at = harness.describe_machine()
        cells = (self.data, self.what, self.other, self.ours, self.difference, self.of, self.note)
        command = f"`{re.sub(PATHS, '', harness.format_command())}`"
        return f"| {' | '.join(cells)} | {command} | {at['commit']}, {at['date']}, {at['machine']} |"


def draw_interval(
    values: NDArray[np.float64], others: NDArray[np.float64], clusters: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the 95% interval of the mean of `values - others` [n], with whole clusters drawn with replacement."""
    _, number = np.unique(clusters, return_inverse=True)
    counts = draw_counts(int(number.max()) + 1, DRAWS, seed=0)[1:]
    sums, sizes = np.bincount(number, weights=values - others), np.bincount(number)
    low, high = np.percentile((counts @ sums) / (counts @ sizes), [2.5, 97.5])
    return float(low), float(high)


def format_difference(values: NDArray[np.float64], others: NDArray[np.float64], clusters: NDArray[np.int64]) -> str:
    """Return the mean difference with its interval."""
    low, high = draw_interval(values, others, clusters)
    return f"{np.mean(values - others):+.3f} [{low:+.3f}, {high:+.3f}]"


def record(figures: list[PairedFigure]) -> None:
    """Rewrite PHOTOGRAPHS.md with these rows; recorded rows of other sets and measures stay."""
    new = {(figure.data, figure.what) for figure in figures}
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    rows = [line for line in lines if line.startswith("| ")][2:]
    kept = [line for line in rows if tuple(cell.strip() for cell in line.split("|")[1:3]) not in new]
    head = [
        "# Photographs",
        "",
        "Written by `python -m tests.benchmarks.photographs ... --record`, never by hand. Intervals are 95%, by the",
        "paired bootstrap over groups of near-duplicate names, or classes. The products (on grocery, the classes) are",
        "divided into five folds. For each fold that is measured, both encoders are trained without it. `--folds` in a",
        "command says how many were measured; without it all were.",
        "",
        f"| {' | '.join(HEAD)} |",
        f"|{' --- |' * len(HEAD)}",
    ]
    TABLE.write_text("\n".join([*head, *kept, *(figure.render() for figure in figures)]) + "\n")
