"""Permutation thresholds: how far apart the two sets of products are by chance.

If nothing has changed, it does not matter which products of a stratum (same category, both new or both not) are recent
and which are earlier: every exchange of the labels within strata is equally likely. So all statistics are computed for
many such exchanges. Each statistic is standardized by its own mean and standard deviation over the exchanges. The
observed values are compared with the largest standardized statistic of each exchange (Westfall and Young 1993,
Resampling-Based Multiple Testing, the single-step max-T procedure). The false alarm rate then holds for all statistics
together, whatever the number of statistics, products and new products.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PermutationThresholds:
    """Thresholds of K statistics."""

    expected: Floats
    """[K], mean over the permutations, without the observed labelling: the value that chance gives."""
    threshold: Floats
    """[K]. A larger value is an alarm. Infinite if the statistic is the same for every permutation."""
    p_value: float
    """Share of labellings, the observed one included, whose largest standardized statistic is at least the observed's.

    It is at least 1 / (1 + permutations).
    """


def permute_labels(
    labels: NDArray[np.bool_], stratum: NDArray[np.int64], permutations: int, seed: int
) -> NDArray[np.bool_]:
    """Return [1 + permutations, n]: the labels as they are, then permuted at random within each stratum.

    Args:
        labels: [n], True for recent products.
        stratum: [n], code of each product's group. A group in which all labels are the same stays as it is.
        permutations: number of permutations; they are random, and may repeat.
        seed: seed of the random numbers.
    """
    generator = np.random.default_rng(seed)
    labellings = np.tile(labels, (1 + permutations, 1))
    for code in np.unique(stratum):
        members = np.flatnonzero(stratum == code)
        if 0 < labels[members].sum() < len(members):
            order = generator.random((permutations, len(members))).argsort(axis=1)
            labellings[1:, members] = labels[members][order]
    return labellings


def count_permutations(checks_per_alarm: int) -> int:
    """Return how many permutations a threshold needs.

    With the observed labelling there are twice `checks_per_alarm`, because the single largest value would be an
    unstable threshold.

    Args:
        checks_per_alarm: one false alarm in this many checks, at least 1.
    """
    return 2 * checks_per_alarm - 1


def compute_thresholds(statistics: Floats, checks_per_alarm: int) -> PermutationThresholds:
    """Return the thresholds of K statistics, K at least 1.

    Args:
        statistics: [1 + permutations, K], the observed values, then those of the permutations. Larger is further apart.
        checks_per_alarm: one false alarm in this many checks, for all statistics together.

    Raises:
        UsageError: `statistics` has fewer than `checks_per_alarm` rows.
    """
    permutations = len(statistics) - 1
    if (permutations + 1) < checks_per_alarm:
        raise UsageError(
            f"{permutations} permutations are too few for one false alarm in {checks_per_alarm:,} checks; "
            f"use {count_permutations(checks_per_alarm):,} or more"
        )
    mean, deviation = statistics.mean(axis=0), statistics.std(axis=0)
    varies = deviation > 1e-12
    standardized = np.where(varies, (statistics - mean) / np.where(varies, deviation, 1), 0.0)
    largest = standardized.max(axis=1)
    allowed = (permutations + 1) // checks_per_alarm  # labellings, the observed one included, at the bound or above it
    bound = np.sort(largest[1:])[permutations - allowed]
    return PermutationThresholds(
        expected=statistics[1:].mean(axis=0),
        threshold=np.where(varies, mean + bound * deviation, np.inf),
        p_value=float((largest >= largest[0]).mean()),
    )
