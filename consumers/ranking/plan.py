"""How much a measurement trains, and the names of the rankers. The names appear in the JSON."""

from dataclasses import dataclass

from consumers.ranking import screening

BASE = "tabular"
"""The ranker with the features of the baseline alone."""
ALL = "all features"
"""The ranker with the baseline and every group of features; in the main comparison, every group that passes the
screening."""
PLACEBO = "placebo"
"""The ranker with the baseline and every group, computed after products exchanged their content, and screened in the
same way."""
CEILING = "attainable"
"""The baseline and the true tags and tastes of a generated shop."""
WITHOUT = "all but "
"""Prefix of a group's name: all features except this group."""
PERMUTED = "placebo "
"""Prefix of a group's name: the baseline and this group with permuted content."""
LIGHTGBM, DIN, BOTH = "lightgbm", "din", "both"
RANKERS = (LIGHTGBM, DIN, BOTH)
CURVE_SHARES = (0.1, 0.3)
"""Points of the learning curve as shares of the training rows; all rows are the last point."""


@dataclass(frozen=True)
class TrainingPlan:
    """The number of rankers that a measurement trains, their kind, and their number of rows."""

    seeds: int = 5
    """Number of times that each main ranker is trained, with the seeds 0, 1, ...; at least 1. Lifts are averaged."""
    permutations: int = 20
    """Number of times that products exchange their content for the placebo. A placebo is trained once for each; 0
    leaves the placebo out."""
    ablation_rows: int = 250_000
    """Maximum number of rows that the rankers with one group more or less are trained on; of more rows, a sample
    without replacement is taken."""
    ranker: str = "lightgbm"
    """The main ranker: lightgbm (trees) or din (a network). `both` has the trees as the main ranker, and compares the
    baseline, all features and the placebo with a network too."""
    din_rows: int = 200_000
    """Maximum number of rows that a deep interest network is trained on; of more rows, a sample without replacement is
    taken, the same for every network."""
    screening_errors: float = screening.ERRORS
    """Number of standard errors by which a group must lift the baseline on the validation days, so that the rankers
    with all features and the placebos take it; minus infinity takes every group."""
