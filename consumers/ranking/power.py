"""The power of a verdict: the probability that the rule keeps a group whose features are worth a given effect.

The effect is chosen beforehand and is not the measured one: the power at the measured effect says no more than its p
does (Hoenig and Heisey 2001, The Abuse of Power). The standard errors are those of the bootstrap on the validation
days, users and products drawn, so that the power needs no further ranker (Beran 1986, Simulated Power Functions).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

EFFECT = 0.01
"""The effect, in AUC, for which the power is reported."""
TARGET = 0.8
"""The power at which an effect counts as detectable."""


def compute_power(differences: Sequence[NDArray[np.float64]], effect: float, level: float) -> float:
    """Return the probability that all differences are significantly above zero if all of them truly are `effect`.

    Differences are normal with the standard errors and the correlation of their replicates. Each is tested one-sided.

    Args:
        differences: of the same rows, one or two of them: the value, then at least two replicates [1 + replicates].
        effect: the true difference.
        level: significance level of each test, between 0 and 1.

    Returns:
        From 0 to 1. NaN if a replicate is NaN, or if the replicates of a difference do not vary.
    """
    replicates = np.stack([each[1:] for each in differences])
    errors = replicates.std(axis=1, ddof=1)
    if not (np.isfinite(errors).all() and errors.all()):
        return float("nan")
    margins = effect / errors - norm.ppf(1 - level)
    if len(margins) == 1:
        return float(norm.cdf(margins[0]))
    return float(multivariate_normal(cov=np.corrcoef(replicates), allow_singular=True).cdf(margins))


def find_detectable_effect(differences: Sequence[NDArray[np.float64]], level: float) -> float:
    """Return the smallest effect that `compute_power` gives a power of TARGET; NaN where it is NaN.

    Args:
        differences: as in `compute_power`.
        level: as in `compute_power`.
    """
    if not np.isfinite(compute_power(differences, 0.0, level)):
        return float("nan")
    largest = max(float(each[1:].std(ddof=1)) for each in differences)
    bound = largest * (norm.ppf(1 - level) + norm.ppf(1 - (1 - TARGET) / len(differences)))
    return float(brentq(lambda effect: compute_power(differences, effect, level) - TARGET, 0.0, bound * 1.01))
