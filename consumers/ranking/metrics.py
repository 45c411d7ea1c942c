"""Ranking metrics under weighted users: one call returns a metric for every bootstrap replicate.

Every metric takes `scores` (click probabilities, float [n]), `clicked` (0 or 1 [n]), `user` (codes from 0, int [n]) and
`weights` (how often each user was drawn, int [replicates, users]) and returns float64 [replicates]. A metric is NaN in
a replicate in which it is undefined, as AUC is without a click, or with clicks only.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Metric = Callable[[Floats, Ints, Ints, Ints], NDArray[np.float64]]

CELLS_PER_BLOCK = 4_000_000
"""Replicates times rows that are summed together. Sums that fit into the processor's cache are four times as fast."""


def auc(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Return the area under the ROC curve: the share of (click, no click) pairs in the right order, ties half.

    The Mann-Whitney form (Fawcett 2006, section 7), with each row weighted by how often its user was drawn.

    Args:
        scores: click probabilities, float [n].
        clicked: 0 or 1 [n].
        user: user codes from 0, int [n].
        weights: how often each user was drawn, int [replicates, users].

    Returns:
        float64 [replicates], from 0 to 1; NaN if no clicked or no unclicked row was drawn.
    """
    by_user = np.ascontiguousarray(weights.T, np.int32)
    return _weighted_auc(scores, clicked, len(weights), lambda block, rows: by_user[:, block][user[rows]])


def auc_two_way(
    scores: Floats, clicked: Ints, user: Ints, weights: Ints, product: Ints, product_weights: Ints
) -> NDArray[np.float64]:
    """Return the area under the ROC curve with users and products drawn independently of each other.

    A row's weight is how often its user was drawn times how often its product was drawn. Ties count half.

    Rows that share a user or a product are not independent, and drawing users alone treats the shown products as the
    only possible ones (Owen 2007, The Pigeonhole Bootstrap). The interval is conservative.

    Args:
        scores: click probabilities, float [n].
        clicked: 0 or 1 [n].
        user: user codes from 0, int [n].
        weights: how often each user was drawn, int [replicates, users].
        product: product codes from 0, int [n].
        product_weights: how often each product was drawn, int [replicates, products]; as many replicates as `weights`.

    Returns:
        float64 [replicates], from 0 to 1; NaN if no clicked or no unclicked row has a weight above 0.
    """
    by_user, by_product = (np.ascontiguousarray(each.T, np.int32) for each in (weights, product_weights))

    def row_weights(block: slice, rows: Ints) -> NDArray[np.int32]:
        return np.asarray(by_user[:, block][user[rows]] * by_product[:, block][product[rows]])

    return _weighted_auc(scores, clicked, len(weights), row_weights)


def _weighted_auc(
    scores: Floats, clicked: Ints, replicates: int, row_weights: Callable[[slice, Ints], NDArray[np.int32]]
) -> NDArray[np.float64]:
    """Compute AUC with the weights that `row_weights(replicates, rows)` returns, int32 [rows, replicates].

    The weight below a click is a sum over the unclicked rows up to it. Clicks are few, so the unclicked rows are summed
    in runs between clicks, and only those sums are accumulated.
    """
    result = np.full(replicates, np.nan)
    order = np.argsort(scores, kind="stable")
    clicks, others = order[clicked[order] == 1], order[clicked[order] != 1]
    if not len(clicks) or not len(others):
        return result
    below, tied = (np.searchsorted(scores[others], scores[clicks], side) for side in ("left", "right"))
    bounds, bound_index = np.unique(np.concatenate([[0], below, tied]), return_inverse=True)
    starts = bounds[bounds < len(others)]
    below, tied = np.split(bound_index[1:], 2)
    for block in _blocks(replicates, len(scores)):
        click_weights = row_weights(block, clicks).astype(np.int64)
        runs = np.add.reduceat(row_weights(block, others), starts, axis=0).astype(np.int64)
        cumulated = np.concatenate([np.zeros((1, runs.shape[1]), np.int64), np.cumsum(runs, axis=0)])
        ordered = np.einsum("cb,cb->b", click_weights, cumulated[below] + cumulated[tied]) / 2
        pairs = click_weights.sum(axis=0) * cumulated[-1]
        np.divide(ordered, pairs, out=result[block], where=pairs > 0)
    return result


def gauc(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Return the mean of per-user AUC, weighted by impressions (Zhu et al. 2017, Optimized Cost per Click, 4.2).

    Only users with both a clicked and an unclicked row count; `gauc_coverage` returns their share. A user drawn k times
    counts k times. Ties count half.

    Args:
        scores: click probabilities, float [n].
        clicked: 0 or 1 [n].
        user: user codes from 0, int [n].
        weights: how often each user was drawn, int [replicates, users].

    Returns:
        float64 [replicates], from 0 to 1; NaN if no such user was drawn.
    """
    value, rows = user_auc(scores, clicked, user, weights.shape[1])
    counted = weights * np.where(np.isfinite(value), rows, 0)
    total = counted.sum(axis=1)
    result = np.full(len(weights), np.nan)
    np.divide(counted @ np.nan_to_num(value), total, out=result, where=total > 0)
    return result


def user_auc(scores: Floats, clicked: Ints, user: Ints, users: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the AUC of each user's own rows, with ties as half, and the number of the user's rows.

    Args:
        scores: click probabilities, float [n].
        clicked: 0 or 1 [n].
        user: user codes, int [n], from 0 and below `users`.
        users: number of users; some may have no row.

    Returns:
        AUC, float64 [users], NaN for users without a clicked or without an unclicked row; and rows, int64 [users].
    """
    order = np.lexsort((scores, user))
    scores, clicked, user = scores[order], clicked[order].astype(np.int64), user[order]
    rows = np.bincount(user, minlength=users)
    clicks = np.bincount(user, weights=clicked, minlength=users)
    first_of_user = np.concatenate([[0], np.cumsum(rows)[:-1]])
    is_new_run = np.diff(scores, prepend=np.nan) != 0
    is_new_run |= np.diff(user, prepend=-1) != 0
    run = np.cumsum(is_new_run) - 1
    starts = np.flatnonzero(is_new_run)
    ends = np.append(starts[1:], len(scores))
    mean_rank = (starts + ends + 1)[run] / 2 - first_of_user[user]  # from 1; ties share their mean
    rank_sum = np.bincount(user, weights=mean_rank * clicked, minlength=users)
    pairs = clicks * (rows - clicks)
    value = np.full(users, np.nan)
    np.divide(rank_sum - clicks * (clicks + 1) / 2, pairs, out=value, where=pairs > 0)
    return value, rows


def gauc_coverage(clicked: Ints, user: Ints) -> tuple[float, float]:
    """Return the shares of users and of rows that GAUC counts: users with both a clicked and an unclicked row.

    Args:
        clicked: 0 or 1 [n], at least one row.
        user: user codes from 0, int [n]. Codes without a row are not counted as users.

    Returns:
        The share of the users, and the share of the rows that belong to them, each from 0 to 1.
    """
    rows = np.bincount(user)
    clicks = np.bincount(user, weights=clicked)
    has_both = (clicks > 0) & (clicks < rows)
    return float(has_both[rows > 0].mean()), float(rows[has_both].sum() / rows.sum())


def log_loss(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Return the mean negative log likelihood of the clicks, in nats per row; lower is better.

    A row counts as often as its user was drawn. Probabilities of what happened that are below 1e-7 count as 1e-7.

    Args:
        scores: click probabilities, float [n].
        clicked: 0 or 1 [n].
        user: user codes from 0, int [n].
        weights: how often each user was drawn, int [replicates, users].

    Returns:
        float64 [replicates]; NaN if no row was drawn.
    """
    likelihood = np.clip(np.where(clicked == 1, scores, 1 - scores), 1e-7, 1)
    return _ratio_of_user_sums(-np.log(likelihood), np.ones(len(scores)), user, weights)


def calibration(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Return predicted clicks divided by observed clicks (He et al. 2014, equation 1).

    1 is perfect; above 1, more clicks are predicted than there were. A row counts as often as its user was drawn.

    Args:
        scores: click probabilities, float [n].
        clicked: 0 or 1 [n].
        user: user codes from 0, int [n].
        weights: how often each user was drawn, int [replicates, users].

    Returns:
        float64 [replicates]; NaN if no clicked row was drawn.
    """
    return _ratio_of_user_sums(scores, clicked, user, weights)


METRICS: dict[str, Metric] = {"auc": auc, "gauc": gauc, "log_loss": log_loss, "calibration": calibration}
"""Metric names, as the JSON has them, to functions."""


def draw_counts(size: int, replicates: int, seed: int) -> NDArray[np.int32]:
    """Draw bootstrap weights of users (or products) with replacement.

    Args:
        size: number of users, at least 1; as many are drawn in each replicate.
        replicates: number of draws beside row 0; may be 0.
        seed: seed of the draws; the same one gives the same weights.

    Returns:
        int32 [1 + replicates, size]: row 0 is all ones; every other row sums to `size`.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(size, np.full(size, 1 / size), size=replicates)
    return np.concatenate([np.ones((1, size), dtype=np.int32), drawn.astype(np.int32)])


def _ratio_of_user_sums(above: Floats, below: Floats | Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """The weighted sum of `above` [n] by that of `below` [n], float64 [replicates]; NaN where the latter is 0."""
    users = weights.shape[1]
    numerator = weights @ np.bincount(user, weights=above, minlength=users)
    denominator = weights @ np.bincount(user, weights=below, minlength=users)
    result = np.full(len(weights), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _blocks(replicates: int, rows: int) -> Iterator[slice]:
    """Slices of the replicates, each with at most CELLS_PER_BLOCK cells of rows and replicates, or one replicate."""
    step = max(1, CELLS_PER_BLOCK // max(rows, 1))
    return (slice(start, min(start + step, replicates)) for start in range(0, replicates, step))
