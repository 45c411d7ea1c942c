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

CELLS_AT_ONCE = 20_000_000
"""Replicates times rows held at once: 80 MB of int32."""


def auc(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Area under the ROC curve: the share of (click, no click) pairs in the right order, ties counted half.

    The Mann-Whitney form (Fawcett 2006, section 7), with every row weighing as often as its user was drawn.
    """
    return _weighted_auc(
        scores, clicked, len(weights), lambda block, order: weights[block].astype(np.int32)[:, user[order]]
    )


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

    def row_weights(block: slice, order: Ints) -> NDArray[np.int32]:
        of_user = weights[block].astype(np.int32)[:, user[order]]
        of_user *= product_weights[block].astype(np.int32)[:, product[order]]
        return of_user

    return _weighted_auc(scores, clicked, len(weights), row_weights)


def _weighted_auc(
    scores: Floats, clicked: Ints, replicates: int, row_weights: Callable[[slice, Ints], NDArray[np.int32]]
) -> NDArray[np.float64]:
    order = np.argsort(scores, kind="stable")
    clicked = clicked[order].astype(np.int32)
    ties = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # first row of each run of equal scores
    result = np.full(replicates, np.nan)
    if len(scores) == 0:
        return result
    for block in _blocks(replicates, len(scores)):
        weight = row_weights(block, order)
        clicks = np.add.reduceat(weight * clicked, ties, axis=1, dtype=np.int64)
        others = np.add.reduceat(weight, ties, axis=1, dtype=np.int64) - clicks
        below = np.cumsum(others, axis=1) - others
        ordered = np.einsum("bg,bg->b", clicks, below + 0.5 * others)
        pairs = clicks.sum(axis=1) * others.sum(axis=1)
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


def resampled_users(users: int, replicates: int, seed: int) -> NDArray[np.int32]:
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
