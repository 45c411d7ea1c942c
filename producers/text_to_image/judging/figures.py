"""Shares with intervals, the level of chance, the Fréchet distance and diversity, as functions of arrays."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from producers.encoders.encoder import Vectors
from producers.evaluation.measures import Measure

Z = 1.959964
"""Standard normal quantile of a 95% interval."""


def measure_share(hits: Sequence[bool], units: Sequence[Hashable]) -> Measure:
    """Return a share with its interval by Wilson (1927), which holds near 0 and 1 too.

    Pictures of one sentence succeed and fail together, so a sentence counts as one draw, whose success is the share of
    its pictures.

    Args:
        hits: whether each of n pictures succeeds.
        units: the sentence of each.

    Returns:
        NaN, also in the interval, without pictures.
    """
    shares: dict[Hashable, list[bool]] = {}
    for unit, hit in zip(units, hits, strict=True):
        shares.setdefault(unit, []).append(bool(hit))
    draws = len(shares)
    if not draws:
        return Measure(math.nan, math.nan, math.nan)
    share = float(np.mean([np.mean(values) for values in shares.values()]))
    middle = (share + Z**2 / (2 * draws)) / (1 + Z**2 / draws)
    reach = Z / (1 + Z**2 / draws) * math.sqrt(share * (1 - share) / draws + Z**2 / (4 * draws**2))
    return Measure(share, min(share, max(0.0, middle - reach)), max(share, min(1.0, middle + reach)))


def measure_ratio(share: Measure, real: Measure, draws: int, real_draws: int) -> Measure:
    """Return share / real of two independent groups, with the interval of its logarithm (Katz and others 1978).

    Args:
        share: success among generated pictures.
        real: success among real pictures.
        draws: sentences behind `share`.
        real_draws: pictures behind `real`.

    Returns:
        0, and bounds of NaN, for a share of 0; NaN without a success on real pictures.
    """
    if not real.value > 0 or math.isnan(share.value):
        return Measure(math.nan, math.nan, math.nan)
    if share.value == 0:
        return Measure(0.0, math.nan, math.nan)
    variance = (1 - share.value) / (draws * share.value) + (1 - real.value) / (real_draws * real.value)
    ratio, factor = share.value / real.value, math.exp(Z * math.sqrt(variance))
    return Measure(ratio, ratio / factor, ratio * factor)


def compute_chance(asked: Sequence[str], shown: Sequence[str]) -> float:
    """Return the share of agreement after the n pictures have been given to the n sentences at random."""
    if not len(asked):
        return math.nan
    first, second = np.asarray(asked), np.asarray(shown)
    return float(sum((first == value).mean() * (second == value).mean() for value in np.unique(first)))


def compute_frechet_distance(first: Vectors, second: Vectors) -> float:
    """Return the squared Fréchet distance between normal distributions fitted to two sets of vectors.

        |m1 - m2|^2 + trace(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2))

    Heusel and others (2017), "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", take
    the outputs of an Inception network; here the vectors are those of the shop's encoder. The estimate grows as the
    sets get smaller: compare only distances of sets of the same sizes.

    Args:
        first: [n, dim], n at least 2.
        second: [m, dim], m at least 2.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    means = first.mean(axis=0), second.mean(axis=0)
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    values, axes = np.linalg.eigh(np.atleast_2d(covariances[0]))
    root = (axes * np.sqrt(values.clip(min=0))) @ axes.T
    product = np.linalg.eigvalsh(root @ np.atleast_2d(covariances[1]) @ root)
    traces = np.trace(np.atleast_2d(covariances[0])) + np.trace(np.atleast_2d(covariances[1]))
    distance = np.square(means[0] - means[1]).sum() + traces - 2 * np.sqrt(product.clip(min=0)).sum()
    return max(0.0, float(distance))


def compute_diversity(vectors: Vectors, units: Sequence[Hashable]) -> float:
    """Return the mean distance, 1 - cosine, of two pictures of one sentence, averaged over sentences.

    Args:
        vectors: unit rows [n, dim].
        units: the sentence of each picture; one with fewer than two pictures does not count.

    Returns:
        NaN if no sentence has two pictures.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, unit in enumerate(units):
        rows.setdefault(unit, []).append(row)
    distances = [_mean_distance(vectors[members]) for members in rows.values() if len(members) > 1]
    return float(np.mean(distances)) if distances else math.nan


def _mean_distance(vectors: Vectors) -> NDArray[np.float64]:
    """Return the mean of 1 - cosine over the pairs of unit rows [k, dim], k at least 2."""
    rows, columns = np.triu_indices(len(vectors), k=1)
    return np.mean(1 - np.sum(vectors[rows].astype(np.float64) * vectors[columns], axis=1))
