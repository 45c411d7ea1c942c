"""Child age stages: which one an age is in, and how a distribution over them moves while children grow."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import CHILD_AGE_MONTHS, CHILD_AGES

Floats = NDArray[np.float32]

_BOUNDS = np.array(CHILD_AGE_MONTHS, np.float64)
MICROSECONDS_A_MONTH = 86_400_000_000 * 365.25 / 12
"""A twelfth of a mean year."""


def find_child_stage(months: Floats) -> Floats:
    """Index into CHILD_AGES of a child that many months old [n]; NaN where the age is not known or past childhood."""
    stage = np.searchsorted(CHILD_AGE_MONTHS[1:], np.nan_to_num(months), side="right").astype(np.float32)
    return np.where(np.isnan(months) | (stage >= len(CHILD_AGES)), np.nan, stage)


def compute_expected_stage(distribution: Floats) -> Floats:
    """Mean index into CHILD_AGES of each distribution [n, stages]; NaN where it is missing.

    Summed stage by stage, so that a row's result does not depend on the rows beside it.
    """
    total = distribution[:, 0] * np.float32(0)
    for stage in range(1, distribution.shape[1]):
        total = total + distribution[:, stage] * np.float32(stage)
    return total


def shift_ages(distribution: Floats, microseconds: NDArray[np.int64]) -> Floats:
    """The distribution over stages of the same children some time later.

    Within a stage, ages are taken as evenly spread; whoever outgrows the last stage is counted in it.

    Args:
        distribution: float32 [n, stages], rows summing to one; NaN rows stay so.
        microseconds: int64 [n] or [1], the time that has passed; negative counts as none.

    Returns:
        float32 [n, stages].
    """
    return apply_age_shift(distribution, compute_age_shift(microseconds))


def compute_age_shift(microseconds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of the children of each stage, the share who are younger than each bound between stages after that time.

    Args:
        microseconds: int64 [n], the time that has passed; negative counts as none.

    Returns:
        [stages, n, stages - 1].
    """
    passed = np.maximum(microseconds, 0) / MICROSECONDS_A_MONTH
    was = _BOUNDS[1:-1] - passed[:, None]  # who is younger than a bound now was younger than this
    low, wide = _BOUNDS[:-1, None, None], np.diff(_BOUNDS)[:, None, None]
    return np.minimum(np.maximum((was - low) / wide, 0), 1)  # in a third of the time of a `clip` of each stage


def apply_age_shift(distribution: Floats, age_shift: NDArray[np.float64]) -> Floats:
    """`grown`, for who has worked out the `growth` [stages, n or 1, stages - 1] of many steps at once."""
    younger = np.zeros((len(distribution), len(CHILD_AGES) + 1))  # share of the children younger than each bound, now
    for stage in range(len(CHILD_AGES)):
        younger[:, 1:-1] += age_shift[stage] * distribution[:, stage, None]
        younger[:, -1] += distribution[:, stage]
    return (younger[:, 1:] - younger[:, :-1]).astype(np.float32)
