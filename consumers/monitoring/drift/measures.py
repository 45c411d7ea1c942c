"""Statistics of how far two sets of products differ, computed for many labellings at once. Larger is further apart.

Every function except `assign_deciles` takes `now`, bool [labellings, n]: which of the n products are recent; the others
are earlier. It returns float64 [labellings].
"""

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.bool_]
Floats = NDArray[np.float64]

PSEUDO_COUNT = 0.5
"""Added to each count before shares are compared, so that an empty category does not make the index infinite."""
SCORE_BINS = 10
"""Bins of `assign_deciles`."""


def mean_shift(values: NDArray, now: Labels) -> Floats:
    """Return |mean of recent - mean of earlier|, one number for each labelling.

    Args:
        values: [n]. NaN and infinite values are ignored. If one side has no other value, the result is 0.
        now: [labellings, n], True for recent products.
    """
    finite = np.isfinite(values)
    counts, sums = _sum_by_side(finite.astype(np.float64), now), _sum_by_side(np.where(finite, values, 0.0), now)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return np.where(counts.min(axis=0) > 0, np.abs(means[0] - means[1]), 0.0)


def centroid_shift(vectors: NDArray, now: Labels) -> Floats:
    """Return the Euclidean distance between the means of the recent and the earlier vectors, for each labelling.

    Args:
        vectors: [n, width], finite. The mean of a side without products is the zero vector.
        now: [labellings, n], True for recent products.
    """
    recent = now.astype(np.float64)
    counts = recent.sum(axis=1, keepdims=True)
    total = vectors.sum(axis=0, dtype=np.float64)
    sums = recent @ vectors.astype(np.float64)
    recent_mean = sums / np.maximum(counts, 1)
    earlier_mean = (total - sums) / np.maximum(len(vectors) - counts, 1)
    return np.linalg.norm(recent_mean - earlier_mean, axis=1)


def psi(codes: NDArray[np.int64], now: Labels) -> Floats:
    """Return the population stability index: the sum over categories of (p - q) ln(p / q).

    p and q are the category's shares of recent and earlier products, after PSEUDO_COUNT is added to each count. This is
    Kullback's symmetric divergence, known under this name in credit scoring (Siddiqi 2006, Credit Risk Scorecards). It
    is 0 if the shares are equal, and finite even if one side has no product. One number for each labelling.

    Args:
        codes: [n], category codes; negative codes are ignored. The result is 0 if there are no others.
        now: [labellings, n], True for recent products.
    """
    counts = _count_by_side(codes, now) + PSEUDO_COUNT
    shares = counts / counts.sum(axis=2, keepdims=True)
    return ((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum(axis=1)


def largest_share_shift(codes: NDArray[np.int64], now: Labels) -> Floats:
    """Return the largest |recent share - earlier share| of a category, in standard errors of their pooled share.

    One number for each labelling. A category that all products have counts as 0.

    Args:
        codes: [n], category codes; negative codes are ignored. At least one must not be negative.
        now: [labellings, n], True for recent products.
    """
    counts = _count_by_side(codes, now)
    sizes = counts.sum(axis=2, keepdims=True)
    pooled = counts.sum(axis=0) / sizes.sum(axis=0)
    error = np.sqrt(pooled * (1 - pooled) * (1 / np.maximum(sizes, 1)).sum(axis=0))
    shares = counts / np.maximum(sizes, 1)
    shift = np.abs(shares[0] - shares[1])
    return np.divide(shift, error, out=np.zeros_like(shift), where=error > 0).max(axis=1)


def entropy_shift(codes: NDArray[np.int64], now: Labels) -> Floats:
    """Return |entropy of recent - entropy of earlier| of the category shares, in nats, for each labelling.

    Args:
        codes: [n], category codes; negative codes are ignored. The entropy of a side without others is 0.
        now: [labellings, n], True for recent products.
    """
    counts = _count_by_side(codes, now)
    shares = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy = -(shares * logs).sum(axis=2)
    return np.abs(entropy[0] - entropy[1])


def assign_deciles(scores: NDArray) -> NDArray[np.int64]:
    """Return [n], the decile of each score among all finite ones: 0 to 9, ascending with the score.

    A score equal to the bound of two bins is in the upper one. NaN and infinite scores share one further bin after the
    last. If many scores are equal, there are fewer than ten bins. All are 0 if no score is finite.
    """
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return np.zeros(len(scores), np.int64)
    bounds = np.unique(np.quantile(finite, np.linspace(0, 1, SCORE_BINS + 1)[1:-1]))
    return np.where(np.isfinite(scores), np.searchsorted(bounds, scores, side="right"), len(bounds) + 1)


def _sum_by_side(values: NDArray, now: Labels) -> Floats:
    """Return [2, labellings], the sums over recent and over earlier products."""
    recent = now @ values
    return np.stack([recent, values.sum() - recent])


def _count_by_side(codes: NDArray[np.int64], now: Labels) -> Floats:
    """Return [2, labellings, categories], the counts among recent and earlier products, without negative codes."""
    used = np.unique(codes[codes >= 0])
    one_hot = (codes[:, None] == used[None, :]).astype(np.float64)
    recent = now.astype(np.float64) @ one_hot
    return np.stack([recent, one_hot.sum(axis=0) - recent])
