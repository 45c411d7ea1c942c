"""Figures of a population from pairs that were drawn with unequal probabilities.

A judged pair stands for 1 / inclusion probability pairs (Horvitz and Thompson, 1952). A share is a ratio of two such
sums (Hajek, 1971). Its variance is that of the linearised ratio with anchors as clusters (Sarndal, Swensson and
Wretman, "Model Assisted Survey Sampling", 1992, 5.6 and 5.7): pairs of one anchor are not independent. Pairs without a
judgement and unsure ones are left out, not counted as wrong.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class ShareEstimate:
    """A share with its interval; NaN where nothing was judged."""

    value: float
    low: float
    """Lower end of the 95% interval."""
    high: float
    judged: int
    """Number of judged pairs, or of anchors, that were averaged."""

    def __str__(self) -> str:
        if not self.judged:
            return "nothing judged"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, {self.judged:,} judged)"


def estimate_share(hit: Bools | Floats, weight: Floats, anchor: Int64) -> ShareEstimate:
    """Return the weighted mean of n values in [0, 1] with its 95% interval.

    The interval is Wilson's, for the number of independent values that would have the same variance.

    Args:
        hit: [n].
        weight: [n], 1 / inclusion probability.
        anchor: [n], the cluster of each value.
    """
    if not len(hit):
        return ShareEstimate(float("nan"), float("nan"), float("nan"), 0)
    value = float(np.average(hit, weights=weight))
    influence = sum_influence(np.asarray(hit, np.float64), weight, anchor)
    clusters = len(influence)
    variance = float((influence**2).sum()) * clusters / max(1, clusters - 1)
    # Clusters that all agree have no variance; they still are no more than so many independent values.
    independent = min(float(clusters), value * (1 - value) / variance) if variance > 0 else float(clusters)
    low, high = wilson_interval(value, independent)
    return ShareEstimate(value, low, high, len(hit))


def sum_influence(hit: Floats, weight: Floats, anchor: Int64) -> Floats:
    """Return what each anchor adds to the linearised error of the weighted mean, float64 [anchors], by ascending id."""
    influence = weight * (hit - np.average(hit, weights=weight)) / weight.sum()
    _, cluster = np.unique(anchor, return_inverse=True)
    return np.bincount(cluster, influence).astype(np.float64)


def wilson_interval(share: float, values: float) -> tuple[float, float]:
    """Return the 95% interval of a share of `values` independent values (Wilson, 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * values)) / (1 + z * z / values)
    half = z / (1 + z * z / values) * float(np.sqrt(share * (1 - share) / values + z * z / (4 * values**2)))
    return max(0.0, centre - half), min(1.0, centre + half)
