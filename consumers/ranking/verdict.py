"""Keep, drop or not proven: one rule for every group, applied to the validation days, corrected for their number.

    keep         the group lifts the baseline, and lifts it more than the same group with permuted content does. Both
                 hold at LEVEL: a group's p is the larger of its two, and Holm's step-down corrects for all groups.
    drop         the group is shown to be worth less than MIN_WORTH: the upper bounds of its lift over the placebo and
                 of what it adds to all other groups, at LEVEL divided by the number of groups, lie below MIN_WORTH
    not proven   neither

A p is one-sided: the difference divided by its bootstrap standard error, users and products drawn. The rule and its
two constants were fixed before any test day of the shops of seeds 0 to 4 was scored.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from consumers.ranking.power import EFFECT, compute_power, find_detectable_effect

KEEP, DROP, NOT_PROVEN = "keep", "drop", "not proven"
LEVEL = 0.05
"""Significance level, for all groups together."""
MIN_WORTH = 0.0005
"""AUC below which maintaining a group of features is not worthwhile."""
RULE = (
    f"keep: lifts the baseline, and more than the same group with permuted content, Holm-corrected p < {LEVEL}; "
    f"drop: shown to be worth less than {MIN_WORTH:+.4f} AUC over the placebo and beside the other groups; "
    "else not proven"
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What one group of features changes in AUC on the validation days.

    Each difference is float64 [1 + replicates]: the value, then its bootstrap replicates.
    """

    added: Floats
    """The baseline with the group, minus the baseline."""
    over_placebo: Floats | None
    """The baseline with the group, minus the baseline with the group of permuted content; None without a placebo."""
    removed: Floats
    """All groups, minus all groups but this one."""


@dataclass(frozen=True)
class Verdict:
    """The rule's verdict on one group."""

    verdict: str
    """KEEP, DROP or NOT_PROVEN."""
    p: float
    """One-sided p that the group lifts, from 0 to 1, corrected for the number of groups; below LEVEL is KEEP."""
    power: float = float("nan")
    """Probability of KEEP, from 0 to 1, for a group whose content is truly worth `power.EFFECT` of AUC, both over the
    baseline and over the placebo. NaN where a difference is undefined or has no error."""
    detectable: float = float("nan")
    """The smallest worth in AUC that is KEEP with the probability `power.TARGET`; NaN where `power` is."""


def decide_verdicts(evidence: Mapping[str, Evidence]) -> dict[str, Verdict]:
    """Apply the rule to every group. A difference that is undefined (NaN) proves nothing, neither KEEP nor DROP.

    A group that meets both conditions is KEEP. Without a placebo, KEEP needs the lift over the baseline alone, and DROP
    takes that lift in place of the one over the placebo. The power is that of the smallest of Holm's levels, LEVEL
    divided by the number of groups, and therefore a lower bound.

    Args:
        evidence: group to its evidence. The number of groups counts for the correction.

    Returns:
        Group to its verdict, in the same order; empty without groups.
    """
    p = {name: max(_compute_p_above(each, 0) for each in _list_lower_tests(e)) for name, e in evidence.items()}
    corrected = holm_correction(p)
    share = LEVEL / max(len(evidence), 1)
    return {
        name: Verdict(
            _decide(corrected[name], [upper_bound(each, share) for each in _list_upper_tests(e)]),
            corrected[name],
            compute_power(_list_lower_tests(e), EFFECT, share),
            find_detectable_effect(_list_lower_tests(e), share),
        )
        for name, e in evidence.items()
    }


def holm_correction(p: Mapping[str, float]) -> dict[str, float]:
    """Correct p values for their number by Holm's step-down method (Holm 1979).

    The k-th smallest of m values is multiplied by m - k + 1, is at most 1, and is at least the corrected value before.

    Args:
        p: name to a p from 0 to 1, not NaN.

    Returns:
        Name to its corrected p, from the smallest p to the largest; empty for an empty `p`.
    """
    corrected: dict[str, float] = {}
    floor = 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        floor = max(floor, min(1.0, p[name] * (len(p) - rank)))
        corrected[name] = floor
    return corrected


def upper_bound(difference: Floats, level: float) -> float:
    """Return the one-sided upper bound of a difference, by the normal approximation.

    Args:
        difference: the value, then its bootstrap replicates, at least two [1 + replicates].
        level: probability that the true difference is larger, between 0 and 1.

    Returns:
        The bound; NaN if the value or a replicate is NaN, or if the replicates do not vary: a ranker that never used
        the group says nothing about its worth.
    """
    error = difference[1:].std(ddof=1)
    return float(difference[0] + norm.ppf(1 - level) * error) if error else float("nan")


def _compute_p_above(difference: Floats, value: float) -> float:
    """Return the one-sided p of `difference` > `value`; 1 where it is undefined or does not vary."""
    error = difference[1:].std(ddof=1)
    if not np.isfinite(difference[0]) or not np.isfinite(error) or error == 0:
        return 1.0
    return float(norm.sf((difference[0] - value) / error))


def _list_lower_tests(evidence: Evidence) -> list[Floats]:
    """Return the differences that must be above zero for KEEP."""
    return [evidence.added] if evidence.over_placebo is None else [evidence.added, evidence.over_placebo]


def _list_upper_tests(evidence: Evidence) -> list[Floats]:
    """Return the differences that must be below MIN_WORTH for DROP."""
    return [evidence.added if evidence.over_placebo is None else evidence.over_placebo, evidence.removed]


def _decide(p: float, uppers: list[float]) -> str:
    """Return KEEP if `p` is below LEVEL, else DROP if all upper bounds are below MIN_WORTH, else NOT_PROVEN."""
    if p < LEVEL:
        return KEEP
    return DROP if all(bound < MIN_WORTH for bound in uppers) else NOT_PROVEN
