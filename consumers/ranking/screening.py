"""Screening: which groups of features the rankers with all features use, decided on the validation days.

A group without information costs a ranker AUC, because trees split on its noise too, and the fewer the rows, the more.
The rankers with all features therefore use only the groups that lift the baseline on the validation days by more than
one standard error, after the rule of Breiman et al. 1984 (Classification and Regression Trees, 3.4.3) that prefers the
smaller of two models whose errors differ by less. Real and permuted content are screened in the same way, so that a
group without information costs neither of them AUC. The test days decide nothing.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.bootstrap import BootstrapWeights

ERRORS = 1.0
"""Number of standard errors that the lift of a group must exceed."""
REPLICATES = 100
"""Bootstrap draws for a standard error."""


def screen_groups(
    scores: Mapping[str, NDArray[np.float64]],
    base: NDArray[np.float64],
    weights: BootstrapWeights,
    errors: float = ERRORS,
) -> tuple[str, ...]:
    """Return the groups whose lift in AUC over the baseline exceeds some standard errors, in the order of `scores`.

    The standard error is that of the bootstrap, users and products drawn. A lift that is undefined, or has no error,
    is not taken.

    Args:
        scores: group to the click probabilities of the baseline with this group [rows].
        base: click probabilities of the baseline on the same rows [rows].
        weights: bootstrap weights of the rows.
        errors: number of standard errors to exceed; minus infinity takes every group.
    """
    if errors == -np.inf:
        return tuple(scores)
    before = weights.compute_two_way_auc(base[None])[0]
    taken = []
    for name, each in scores.items():
        lift = weights.compute_two_way_auc(each[None])[0] - before
        error = lift[1:].std(ddof=1)
        if error > 0 and lift[0] > errors * error:
            taken.append(name)
    return tuple(taken)
