"""Ranking metrics under weighted users: one call gives a metric for every bootstrap replicate.

All take `scores` float [n] (click probabilities), `clicked` 0/1 [n], `user` int [n] (codes from 0), and `weights`
int [replicates, users]: how often each user was drawn. They return float64 [replicates]. Where a metric is undefined
(no click, or nothing but clicks) it is NaN, never 0.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Metric = Callable[[Floats, Ints, Ints, Ints], NDArray[np.float64]]

CELLS_AT_ONCE = 4_000_000
"""Replicates times rows held at once: what fits a cache is summed four times as fast."""


def auc(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Area under the ROC curve: the share of (click, no click) pairs in the right order, ties counted half.

    The Mann-Whitney form (Fawcett 2006, section 7), with every row weighing as often as its user was drawn.
    """
    by_user = np.ascontiguousarray(weights.T, np.int32)
    return _weighted_auc(scores, clicked, len(weights), lambda block, rows: by_user[:, block][user[rows]])


def auc_two_way(
    scores: Floats, clicked: Ints, user: Ints, weights: Ints, product: Ints, product_weights: Ints
) -> NDArray[np.float64]:
    """`auc` with users and products drawn independently: a row counts as often as its user times its product.

    Owen 2007, The Pigeonhole Bootstrap: rows that share a user or a product are not independent, and drawing users
    alone takes the products shown for the only ones there could be. If anything its interval is too wide.

    Args:
        product: int [n], codes from 0.
        product_weights: int [replicates, products], as many replicates as `weights` has.
    """

    by_user, by_product = (np.ascontiguousarray(each.T, np.int32) for each in (weights, product_weights))

    def row_weights(block: slice, rows: Ints) -> NDArray[np.int32]:
        return np.asarray(by_user[:, block][user[rows]] * by_product[:, block][product[rows]])

    return _weighted_auc(scores, clicked, len(weights), row_weights)


def _weighted_auc(
    scores: Floats, clicked: Ints, replicates: int, row_weights: Callable[[slice, Ints], NDArray[np.int32]]
) -> NDArray[np.float64]:
    """AUC where a row weighs as `row_weights(replicates, rows)` says: int32 [rows, replicates].

    What lies below a click is a sum over the other rows up to it, and there are few clicks: so the others are summed in
    runs between clicks, and only those sums are accumulated.
    """
    result = np.full(replicates, np.nan)
    order = np.argsort(scores, kind="stable")
    clicks, others = order[clicked[order] == 1], order[clicked[order] != 1]
    if not len(clicks) or not len(others):
        return result
    below, tied = (np.searchsorted(scores[others], scores[clicks], side) for side in ("left", "right"))
    bounds, place = np.unique(np.concatenate([[0], below, tied]), return_inverse=True)
    starts = bounds[bounds < len(others)]
    below, tied = np.split(place[1:], 2)
    for block in _blocks(replicates, len(scores)):
        of_clicks = row_weights(block, clicks).astype(np.int64)
        runs = np.add.reduceat(row_weights(block, others), starts, axis=0).astype(np.int64)
        up_to = np.concatenate([np.zeros((1, runs.shape[1]), np.int64), np.cumsum(runs, axis=0)])
        ordered = np.einsum("cb,cb->b", of_clicks, up_to[below] + up_to[tied]) / 2
        pairs = of_clicks.sum(axis=0) * up_to[-1]
        np.divide(ordered, pairs, out=result[block], where=pairs > 0)
    return result


def gauc(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Impression-weighted mean of per-user AUC (Zhu et al. 2017, Optimized Cost per Click, section 4.2).

    Only users with both a click and a row without one count; `gauc_coverage` says how many those are.
    """
    value, rows = user_auc(scores, clicked, user, weights.shape[1])
    counted = weights * np.where(np.isfinite(value), rows, 0)
    total = counted.sum(axis=1)
    result = np.full(len(weights), np.nan)
    np.divide(counted @ np.nan_to_num(value), total, out=result, where=total > 0)
    return result


def user_auc(scores: Floats, clicked: Ints, user: Ints, users: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """AUC of each user's own rows [users], NaN where undefined, and how many rows they have [users]."""
    order = np.lexsort((scores, user))
    scores, clicked, user = scores[order], clicked[order].astype(np.int64), user[order]
    rows = np.bincount(user, minlength=users)
    clicks = np.bincount(user, weights=clicked, minlength=users)
    first_of_user = np.concatenate([[0], np.cumsum(rows)[:-1]])
    new_run = np.diff(scores, prepend=np.nan) != 0
    new_run |= np.diff(user, prepend=-1) != 0
    run = np.cumsum(new_run) - 1
    starts = np.flatnonzero(new_run)
    ends = np.append(starts[1:], len(scores))
    mean_rank = (starts + ends + 1)[run] / 2 - first_of_user[user]  # from 1, ties share their mean
    rank_sum = np.bincount(user, weights=mean_rank * clicked, minlength=users)
    pairs = clicks * (rows - clicks)
    value = np.full(users, np.nan)
    np.divide(rank_sum - clicks * (clicks + 1) / 2, pairs, out=value, where=pairs > 0)
    return value, rows


def gauc_coverage(clicked: Ints, user: Ints) -> tuple[float, float]:
    """Shares of the users, and of the rows, that GAUC can count: users with a click and a row without one."""
    rows = np.bincount(user)
    clicks = np.bincount(user, weights=clicked)
    both = (clicks > 0) & (clicks < rows)
    return float(both[rows > 0].mean()), float(rows[both].sum() / rows.sum())


def log_loss(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Mean negative log likelihood of the clicks, in nats a row; lower is better."""
    likely = np.clip(np.where(clicked == 1, scores, 1 - scores), 1e-7, 1)
    return _ratio_of_user_sums(-np.log(likely), np.ones(len(scores)), user, weights)


def calibration(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Clicks predicted for one that happened; 1 is right (He et al. 2014, Predicting Clicks on Ads, eq. 1)."""
    return _ratio_of_user_sums(scores, clicked, user, weights)


METRICS: dict[str, Metric] = {"auc": auc, "gauc": gauc, "log_loss": log_loss, "calibration": calibration}


def draw_counts(users: int, replicates: int, seed: int) -> NDArray[np.int32]:
    """Bootstrap weights [1 + replicates, users]: row 0 takes each user once, the others draw with replacement.

    Products are drawn by the same function, with another seed.
    """
    chance = np.random.default_rng(seed)
    drawn = chance.multinomial(users, np.full(users, 1 / users), size=replicates)
    return np.concatenate([np.ones((1, users), dtype=np.int32), drawn.astype(np.int32)])


def _ratio_of_user_sums(above: Floats, below: Floats | Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    users = weights.shape[1]
    numerator = weights @ np.bincount(user, weights=above, minlength=users)
    denominator = weights @ np.bincount(user, weights=below, minlength=users)
    result = np.full(len(weights), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _blocks(replicates: int, rows: int) -> Iterator[slice]:
    step = max(1, CELLS_AT_ONCE // max(rows, 1))
    return (slice(start, min(start + step, replicates)) for start in range(0, replicates, step))
