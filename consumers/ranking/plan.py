"""How much is trained, on which rows, and what the rankers are called."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.training_set import TrainingSet

BASE = "tabular"
ALL = "all features"
PLACEBO = "placebo"
ATTAINABLE = "attainable"
WITHOUT = "all but "
SWAPPED = "placebo "
LIGHTGBM, DIN, BOTH = "lightgbm", "din", "both"
RANKERS = (LIGHTGBM, DIN, BOTH)
CURVE = (0.1, 0.3)
"""Shares of the rows before the test, beside all of them."""


@dataclass(frozen=True)
class Plan:
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


@dataclass(frozen=True)
class Split:
    """Which rows of the log [n] do what."""

    train: NDArray[np.bool_]
    """Before the test [n]."""
    judged: NDArray[np.bool_]
    """Validation and test [n]."""
    validation: NDArray[np.bool_]
    """[judged]; the others are the test."""
    ladder: NDArray[np.int64]
    """Which of the train rows the ladder is trained on, all before the validation."""

    @property
    def test(self) -> NDArray[np.bool_]:
        """[n]."""
        return ~self.train


def split_rows(data: TrainingSet, validation: int, start: int, ladder_rows: int) -> Split:
    """Part a log at two moments (microseconds)."""
    time = data.time
    judged = time >= validation
    early = np.flatnonzero(time[time < start] < validation)
    chance = np.random.default_rng(0)
    sample = early if len(early) <= ladder_rows else np.sort(chance.choice(early, ladder_rows, replace=False))
    return Split(time < start, judged, (time < start)[judged], sample)
