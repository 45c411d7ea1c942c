"""How much is trained, on which rows, and what the rankers are called."""

from dataclasses import dataclass

BASE = "tabular"
ALL = "all features"
PLACEBO = "placebo"
CEILING = "attainable"
WITHOUT = "all but "
PERMUTED = "placebo "
LIGHTGBM, DIN, BOTH = "lightgbm", "din", "both"
RANKERS = (LIGHTGBM, DIN, BOTH)
CURVE_SHARES = (0.1, 0.3)
"""Shares of the rows before the test, beside all of them."""


@dataclass(frozen=True)
class TrainingPlan:
    """How much is trained."""

    seeds: int = 5
    """Of the main rankers."""
    permutations: int = 20
    """Of the placebo."""
    ladder_rows: int = 250_000
    """At most, of the rows that the ladder is trained on."""
    ranker: str = "lightgbm"
    """What the main rankers are: lightgbm, din, or both, which has din's baseline, all features and placebo beside."""
    din_rows: int = 200_000
    """At most, of the rows that a DIN is trained on."""
