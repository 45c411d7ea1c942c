"""Which categories got worse between two weeks.

The weeks share anchors, so the difference is computed for each anchor. If nothing changed, both signs of a difference
are equally likely: a category's p-value is the share of random signs with which precision falls at least as much (a
randomization test; Fisher, 1935). Holm's correction bounds the probability of any false alarm over all categories.
"""

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.verdict import holm_correction

Floats = NDArray[np.float64]
Int64 = NDArray[np.int64]

DRAWS = 10_000
"""Random signs of each anchor."""


def find_worse(
    before: dict[str, tuple[Floats, Floats, Int64]],
    after: dict[str, tuple[Floats, Floats, Int64]],
    *,
    level: float = 0.05,
    seed: int = 0,
) -> dict[str, float]:
    """Return the corrected p-value of each category that got worse, by name; categories above `level` are left out.

    Args:
        before: by category: [n] hits in [0, 1], [n] weights and [n] anchors of the earlier week.
        after: the same of the later week; anchors of both weeks have one number.
        level: probability of any false alarm.
        seed: of the signs.
    """
    names = sorted(name for name in before.keys() & after.keys() if len(before[name][0]) and len(after[name][0]))
    p = {name: measure_fall(before[name], after[name], seed) for name in names}
    return {name: value for name, value in holm_correction(p).items() if value <= level}


def measure_fall(before: tuple[Floats, Floats, Int64], after: tuple[Floats, Floats, Int64], seed: int) -> float:
    """Return the one-sided p-value, in (0, 1], of the hypothesis that the weighted mean did not fall; 1 if it did not.

    Args:
        before: [n] hits, [n] weights and [n] anchors of the earlier week, as in `find_worse`.
        after: the same of the later week.
        seed: of the signs.
    """
    fall = np.average(before[0], weights=before[1]) - np.average(after[0], weights=after[1])
    if fall <= 0:
        return 1.0
    anchors, position = np.unique(np.concatenate([before[2], after[2]]), return_inverse=True)
    difference = np.zeros(len(anchors))
    pooled = float(np.average(np.concatenate([before[0], after[0]]), weights=np.concatenate([before[1], after[1]])))
    for (hit, weight, _), rows, sign in (
        (before, position[: len(before[0])], 1),
        (after, position[len(before[0]) :], -1),
    ):
        difference += sign * np.bincount(rows, weight * (hit - pooled) / weight.sum(), len(anchors))
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (DRAWS, len(anchors)))
    return float((1 + ((signs @ difference) >= difference.sum() - 1e-12).sum()) / (1 + DRAWS))
