"""How much a measurement trains, and the names of the rankers. The names appear in the JSON."""

from dataclasses import dataclass

BASE = "tabular"
"""The baseline."""
ALL = "all features"
PLACEBO = "placebo"
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
    """How much a measurement trains."""

    seeds: int = 5
    """Training seeds of each main ranker."""
    permutations: int = 20
    """Permutations of the placebo."""
    ablation_rows: int = 250_000
    """Maximum number of rows that the rankers of the ablations are trained on."""
    ranker: str = "lightgbm"
    """The main ranker: lightgbm or din; both has lightgbm as main and din's main comparisons as secondary ones."""
    din_rows: int = 200_000
    """Maximum number of rows that a DIN is trained on."""
