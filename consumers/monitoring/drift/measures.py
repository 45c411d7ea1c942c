"""Statistics of how far two sets of products are apart, for many labellings at once; larger is further apart.

All take `now` bool [labellings, n]: which of n products are of now, the others being of before. They return float64
[labellings].
"""

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.bool_]
Floats = NDArray[np.float64]

PSEUDO = 0.5
"""Added to each count before shares are compared: an empty category must not make the index infinite."""
SCORE_BINS = 10


def mean_shift(values: NDArray, now: Labels) -> Floats:
    """|mean of now - mean of before| of [n] values; a NaN is left out, and where a side has nothing else it is 0."""
    there = np.isfinite(values)
    seen = np.where(there, values, 0.0)
    counts, sums = _both(there.astype(np.float64), now), _both(seen, now)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return np.where(counts.min(axis=0) > 0, np.abs(means[0] - means[1]), 0.0)


def centroid_shift(vectors: NDArray, now: Labels) -> Floats:
    """Euclidean distance of the two means of [n, width] vectors."""
    of_now = now.astype(np.float64)
    counts = of_now.sum(axis=1, keepdims=True)
    total = vectors.sum(axis=0, dtype=np.float64)
    sums = of_now @ vectors.astype(np.float64)
    mean = sums / np.maximum(counts, 1)
    other = (total - sums) / np.maximum(len(vectors) - counts, 1)
    return np.linalg.norm(mean - other, axis=1)


def psi(codes: NDArray[np.int64], now: Labels) -> Floats:
    """Population stability index: sum over categories of (p - q) ln(p / q), p of now and q of before.

    Kullback's symmetric divergence, in credit scoring under this name (Siddiqi 2006, Credit Risk Scorecards). Counts
    get PSEUDO each.
    """
    counts = _counts(codes, now) + PSEUDO
    shares = counts / counts.sum(axis=2, keepdims=True)
    return ((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum(axis=1)


def largest_share_shift(codes: NDArray[np.int64], now: Labels) -> Floats:
    """The largest |share of now - share of before| of a category, in standard errors of a common share."""
    counts = _counts(codes, now)
    sizes = counts.sum(axis=2, keepdims=True)
    pooled = counts.sum(axis=0) / sizes.sum(axis=0)
    error = np.sqrt(pooled * (1 - pooled) * (1 / np.maximum(sizes, 1)).sum(axis=0))
    shares = counts / np.maximum(sizes, 1)
    shift = np.abs(shares[0] - shares[1])
    return np.divide(shift, error, out=np.zeros_like(shift), where=error > 0).max(axis=1)


def entropy_shift(codes: NDArray[np.int64], now: Labels) -> Floats:
    """|entropy of now - entropy of before| of how often categories are used, in nats."""
    counts = _counts(codes, now)
    shares = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy = -(shares * logs).sum(axis=2)
    return np.abs(entropy[0] - entropy[1])


def deciles(scores: NDArray) -> NDArray[np.int64]:
    """[n], which tenth of all scores each is in; a missing one is in a bin of its own."""
    known = scores[np.isfinite(scores)]
    if not len(known):
        return np.zeros(len(scores), np.int64)
    bounds = np.unique(np.quantile(known, np.linspace(0, 1, SCORE_BINS + 1)[1:-1]))
    return np.where(np.isfinite(scores), np.searchsorted(bounds, scores, side="right"), len(bounds) + 1)


def _both(values: NDArray, now: Labels) -> Floats:
    """[2, labellings], sums over now and over before."""
    of_now = now @ values
    return np.stack([of_now, values.sum() - of_now])


def _counts(codes: NDArray[np.int64], now: Labels) -> Floats:
    """[2, labellings, categories], how often each category is in now and in before; a code below 0 is left out."""
    used = np.unique(codes[codes >= 0])
    one_hot = (codes[:, None] == used[None, :]).astype(np.float64)
    of_now = now.astype(np.float64) @ one_hot
    return np.stack([of_now, one_hot.sum(axis=0) - of_now])
