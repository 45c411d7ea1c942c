"""Keep, drop or not proven: one rule for every group, applied to the validation days, corrected for how many there are.

    keep         the group lifts the baseline, and lifts it by more than the same group of swapped content does: both
                 at LEVEL, where a group's p is the larger of its two and Holm's step-down corrects for the groups
    drop         it is shown to be worth less than WORTH: the upper ends of its lift over the placebo and of what it
                 adds to all the others, at LEVEL divided by the number of groups, lie below it
    not proven   neither

A p is that of the difference over its bootstrap standard error, one-sided, users and products drawn. The rule and its
two constants were fixed before any test day of a shop of seed 0 to 4 was scored by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

KEEP, DROP, NOT_PROVEN = "keep", "drop", "not proven"
LEVEL = 0.05
MIN_WORTH = 0.0005
"""AUC below which no team would carry a group of features."""
RULE = (
    f"keep: lifts the baseline, and more than the same group with swapped content, Holm-corrected p < {LEVEL}; "
    f"drop: shown to be worth less than {MIN_WORTH:+.4f} AUC over the placebo and beside the other groups; "
    "else not proven"
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """Differences in AUC on the validation days, each [1 + replicates]: the value, then its bootstrap replicates."""

    added: Floats
    """The baseline with the group, less the baseline."""
    over_placebo: Floats | None
    """The baseline with the group, less the baseline with the group of swapped content; None where none can be."""
    removed: Floats
    """All groups, less all but this one."""


@dataclass(frozen=True)
class Verdict:
    """What the rule says of one group."""

    verdict: str
    p: float
    """Corrected for the number of groups."""


def decide_verdicts(evidence: Mapping[str, Evidence]) -> dict[str, Verdict]:
    """Apply the rule to every group."""
    tried = {name: max(_p_above(each, 0) for each in _shown(e)) for name, e in evidence.items()}
    corrected = holm_correction(tried)
    share = LEVEL / max(len(evidence), 1)
    return {
        name: Verdict(_decide(corrected[name], [upper_bound(each, share) for each in _bounds(e)]), corrected[name])
        for name, e in evidence.items()
    }


def holm_correction(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (Holm 1979): the k-th smallest of m times m - k + 1, no less than those before."""
    corrected: dict[str, float] = {}
    floor = 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        floor = max(floor, min(1.0, p[name] * (len(p) - rank)))
        corrected[name] = floor
    return corrected


def upper_bound(difference: Floats, level: float) -> float:
    """One-sided upper bound of a difference [1 + replicates] at `level`."""
    return float(difference[0] + norm.ppf(1 - level) * difference[1:].std(ddof=1))


def _p_above(difference: Floats, value: float) -> float:
    """One-sided p of `difference` > `value`; 1 where it is undefined."""
    error = difference[1:].std(ddof=1)
    if not np.isfinite(difference[0]) or not np.isfinite(error):
        return 1.0
    if error == 0:
        return 1.0 if difference[0] <= value else 0.0
    return float(norm.sf((difference[0] - value) / error))


def _shown(evidence: Evidence) -> list[Floats]:
    return [evidence.added] if evidence.over_placebo is None else [evidence.added, evidence.over_placebo]


def _bounds(evidence: Evidence) -> list[Floats]:
    return [evidence.added if evidence.over_placebo is None else evidence.over_placebo, evidence.removed]


def _decide(p: float, uppers: list[float]) -> str:
    if p < LEVEL:
        return KEEP
    return DROP if all(bound < MIN_WORTH for bound in uppers) else NOT_PROVEN
