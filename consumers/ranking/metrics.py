"""Ranking metrics under weighted users: one call returns a metric for every bootstrap replicate.

Every metric takes `scores` (click probabilities, float [n]), `clicked` (0 or 1 [n]), `user` (codes from 0, int [n]) and
`weights` (how often each user was drawn, int [replicates, users]) and returns float64 [replicates]. A metric that is
undefined in a replicate (no click, or clicks only) is NaN.
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
    """
    by_user = np.ascontiguousarray(weights.T, np.int32)
    return _weighted_auc(scores, clicked, len(weights), lambda block, rows: by_user[:, block][user[rows]])


def auc_two_way(
    scores: Floats, clicked: Ints, user: Ints, weights: Ints, product: Ints, product_weights: Ints
) -> NDArray[np.float64]:
    """Return `auc` with users and products drawn independently: a row's weight is its user's times its product's.

    Rows that share a user or a product are not independent, and drawing users alone treats the shown products as the
    only possible ones (Owen 2007, The Pigeonhole Bootstrap). The interval is conservative.

    Args:
        scores: as in `auc`.
        clicked: as in `auc`.
        user: as in `auc`.
        weights: as in `auc`.
        product: int [n], codes from 0.
        product_weights: int [replicates, products], with as many replicates as `weights`.
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

    Only users with both a click and an unclicked row count; `gauc_coverage` returns their share.
    """
    value, rows = user_auc(scores, clicked, user, weights.shape[1])
    counted = weights * np.where(np.isfinite(value), rows, 0)
    total = counted.sum(axis=1)
    result = np.full(len(weights), np.nan)
    np.divide(counted @ np.nan_to_num(value), total, out=result, where=total > 0)
    return result


def user_auc(scores: Floats, clicked: Ints, user: Ints, users: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the AUC of each user's own rows, NaN where undefined, and the number of rows, [users] each."""
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
    """Return the shares of users and of rows that GAUC counts: users with both a click and an unclicked row."""
    rows = np.bincount(user)
    clicks = np.bincount(user, weights=clicked)
    has_both = (clicks > 0) & (clicks < rows)
    return float(has_both[rows > 0].mean()), float(rows[has_both].sum() / rows.sum())


def log_loss(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Return the mean negative log likelihood of the clicks, in nats per row; lower is better."""
    likelihood = np.clip(np.where(clicked == 1, scores, 1 - scores), 1e-7, 1)
    return _ratio_of_user_sums(-np.log(likelihood), np.ones(len(scores)), user, weights)


def calibration(scores: Floats, clicked: Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    """Return predicted clicks divided by observed clicks; 1 is perfect (He et al. 2014, equation 1)."""
    return _ratio_of_user_sums(scores, clicked, user, weights)


METRICS: dict[str, Metric] = {"auc": auc, "gauc": gauc, "log_loss": log_loss, "calibration": calibration}
"""Metric names, as the JSON has them, to functions."""


def draw_counts(size: int, replicates: int, seed: int) -> NDArray[np.int32]:
    """Draw bootstrap weights of `size` users (or products) with replacement.

    Returns:
        int32 [1 + replicates, size]: row 0 is all ones; every other row sums to `size`.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(size, np.full(size, 1 / size), size=replicates)
    return np.concatenate([np.ones((1, size), dtype=np.int32), drawn.astype(np.int32)])


def _ratio_of_user_sums(above: Floats, below: Floats | Ints, user: Ints, weights: Ints) -> NDArray[np.float64]:
    users = weights.shape[1]
    numerator = weights @ np.bincount(user, weights=above, minlength=users)
    denominator = weights @ np.bincount(user, weights=below, minlength=users)
    result = np.full(len(weights), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _blocks(replicates: int, rows: int) -> Iterator[slice]:
    step = max(1, CELLS_PER_BLOCK // max(rows, 1))
    return (slice(start, min(start + step, replicates)) for start in range(0, replicates, step))
