"""Cut-offs of categories, such that what scores above them has a wanted precision for other queries, too.

The lowest score above which the labels have the precision is too low for other queries: of many scores, the one is
chosen at which these labels happen to be good, and labels of one query are good or bad together. So a category has only
the curve of its precision, a logistic regression of its labels on the score (two parameters). All categories share one
nominal precision, at which each is cut on its curve. It is the lowest for which the labels above the cut-offs have the
wanted precision by the lower bound of its interval, in which queries and not labels are the sample.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Int64 = NDArray[np.int64]

MIN_LABELS, MIN_OF_EACH = 100, 20
"""A category with fewer labels, or fewer of one answer, gets the cut-off of all categories together."""
MIN_ABOVE = 10
"""Minimum number of labels above a cut-off: the precision of fewer is chance."""
DEVIATIONS = 1.645
"""Standard errors from the precision to its lower bound: that of a one-sided interval of 95%."""
STEP = 0.01
"""Distance of the nominal precisions that are tried."""
DEEPEST = 0.15
"""How far below the wanted precision the nominal one begins; a logistic curve may be that much too low."""


def choose_cutoffs(
    scores: Floats, is_relevant: Bools, weights: Floats, names: NDArray[np.str_], queries: Int64, precision: float
) -> tuple[float, dict[str, float]]:
    """Return the cut-off of all categories together, and those of categories with enough labels.

    A cut-off is infinite if no score reaches the precision.

    Args:
        scores: [n], of the labels.
        is_relevant: [n], both answers occur.
        weights: [n], weight of each label in the precision.
        names: [n], category of each label; "" if unknown.
        queries: [n], number of each label's query, from 0.
        precision: wanted precision, in (0, 1).
    """
    general = _fit_curve(scores, is_relevant, weights)
    curves = {
        str(name): _fit_curve(scores[rows], is_relevant[rows], weights[rows])
        for name in np.unique(names)
        if name
        for rows in [names == name]
        if rows.sum() >= MIN_LABELS and min(is_relevant[rows].sum(), (~is_relevant[rows]).sum()) >= MIN_OF_EACH
    }
    for nominal in np.arange(max(STEP, precision - DEEPEST), 1, STEP):
        cutoff = _cut_curve(*general, nominal)
        cutoffs = {name: _cut_curve(*curve, nominal) for name, curve in curves.items()}
        is_above = scores >= find_cutoffs(names, cutoff, cutoffs)
        if not is_above.any():
            break
        if bound_precision(is_relevant[is_above], weights[is_above], queries[is_above]) >= precision:
            return cutoff, cutoffs
    return float("inf"), dict.fromkeys(curves, float("inf"))


def find_cutoffs(names: NDArray[np.str_], cutoff: float, cutoffs: Mapping[str, float]) -> Floats:
    """Return the cut-off of each label's category, float64 [n]; `cutoff` for a category without one of its own."""
    found, number = np.unique(names, return_inverse=True)
    return np.array([cutoffs.get(str(name), cutoff) for name in found])[number]


def bound_precision(is_relevant: Bools, weights: Floats, queries: Int64) -> float:
    """Return the lower bound of the precision of some labels, over queries like these; at most the precision.

    It is DEVIATIONS standard errors of a ratio estimator below the precision (Cochran 1977, 6.4). The labels of a
    single query say nothing about others, so the bound is then minus infinity.

    Args:
        is_relevant: [n], at least one.
        weights: [n].
        queries: [n], number of each label's query.
    """
    _, number = np.unique(queries, return_inverse=True)
    taken, hits = np.bincount(number, weights), np.bincount(number, weights * is_relevant)
    if len(taken) < 2:
        return float("-inf")
    share = hits.sum() / taken.sum()
    variance = ((hits - share * taken) ** 2).sum() * len(taken) / (len(taken) - 1)
    return float(share - DEVIATIONS * np.sqrt(variance) / taken.sum())


def _fit_curve(scores: Floats, is_relevant: Bools, weights: Floats) -> tuple[Floats, Floats]:
    """Return scores, descending, and the precision of all labels from each one upwards by a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(scores[:, None], is_relevant, sample_weight=weights)
    order = np.argsort(-scores, kind="stable")
    probability = model.predict_proba(scores[order, None])[:, 1]
    return scores[order], np.cumsum(weights[order] * probability) / np.cumsum(weights[order])


def _cut_curve(scores: Floats, precision: Floats, nominal: float) -> float:
    """Return the lowest score of a curve that has a nominal precision, with at least MIN_ABOVE labels above it."""
    reached = precision >= nominal
    reached[: MIN_ABOVE - 1] = False
    return float(scores[np.flatnonzero(reached)[-1]]) if reached.any() else float("inf")
