"""Child age stages: the stage of an age, and how a distribution over stages shifts while children grow.

`bounds` are those of the deployment's scale (feature_repo/age_scale.py), in months: stage i is
[bounds[i], bounds[i + 1]).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import CHILD_AGE_MONTHS

Floats = NDArray[np.float32]

MICROSECONDS_PER_MONTH = 86_400_000_000 * 365.25 / 12
"""A twelfth of a mean year."""


def find_child_stage(months: Floats, bounds: Sequence[float] = CHILD_AGE_MONTHS) -> Floats:
    """Return float32 [n], the index of the stage that each child's age, in months [n], falls in.

    NaN if the age is NaN, or at or beyond the end of the last stage. A bound between two stages belongs to the older
    one. An age before the first stage is in the first stage.
    """
    stage = np.searchsorted(bounds[1:], np.nan_to_num(months), side="right").astype(np.float32)
    return np.where(np.isnan(months) | (stage >= len(bounds) - 1), np.nan, stage)


def compute_expected_stage(distribution: Floats) -> Floats:
    """Return float32 [n], the mean index of the stage of distributions [n, stages]; NaN where one is NaN.

    Rows must sum to 1: the sum is not divided by their total.
    The sum is taken stage by stage, so that a row's result does not depend on other rows.
    """
    total = distribution[:, 0] * np.float32(0)
    for stage in range(1, distribution.shape[1]):
        total = total + distribution[:, stage] * np.float32(stage)
    return total


def shift_ages(
    distribution: Floats, microseconds: NDArray[np.int64], bounds: Sequence[float] = CHILD_AGE_MONTHS
) -> Floats:
    """Return the age distribution of the same children after some time has passed.

    Ages within a stage are assumed to be uniform. Children who outgrow the last stage are counted in it.

    Args:
        distribution: float32 [n, stages]; rows sum to 1, NaN rows stay NaN.
        microseconds: int64 [n], or [1] for all rows, the time that has passed; negative values count as 0.
        bounds: of the stages, in months.

    Returns:
        float32 [n, stages]; the argument is not changed.
    """
    return apply_age_shift(distribution, compute_age_shift(microseconds, bounds))


def compute_age_shift(
    microseconds: NDArray[np.int64], bounds: Sequence[float] = CHILD_AGE_MONTHS
) -> NDArray[np.float64]:
    """Return the share of each stage's children who are younger than each bound between stages after some time.

    Args:
        microseconds: int64 [n], the time that has passed; negative values count as 0.
        bounds: of the stages, in months.

    Returns:
        float64 [stages, n, stages - 1], shares in [0, 1], for `apply_age_shift`: axis 0 is the stage before, axis 2 the
        bound, youngest first.
    """
    months = np.maximum(microseconds, 0) / MICROSECONDS_PER_MONTH
    edges = np.array(bounds, np.float64)
    earlier_bounds = edges[1:-1] - months[:, None]  # who is younger than a bound now was younger than this before
    low, width = edges[:-1, None, None], np.diff(edges)[:, None, None]
    return np.minimum(np.maximum((earlier_bounds - low) / width, 0), 1)  # three times as fast as `clip` per stage


def apply_age_shift(distribution: Floats, age_shift: NDArray[np.float64]) -> Floats:
    """Do what `shift_ages` does with a result of `compute_age_shift`, which can be computed for many steps at once.

    Args:
        distribution: float32 [n, stages]; rows sum to 1, NaN rows stay NaN.
        age_shift: float64 [stages, n or 1, stages - 1], a result of `compute_age_shift`.

    Returns:
        float32 [n, stages].
    """
    stages = distribution.shape[1]
    younger = np.zeros((len(distribution), stages + 1))  # share of children below each bound after the time
    for stage in range(stages):
        younger[:, 1:-1] += age_shift[stage] * distribution[:, stage, None]
        younger[:, -1] += distribution[:, stage]
    return (younger[:, 1:] - younger[:, :-1]).astype(np.float32)
