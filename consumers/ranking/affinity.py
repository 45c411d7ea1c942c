"""How close a candidate is to what its user clicked before: relations, which raise a ranker where raw vectors do not.

All results depend on earlier rows alone, bit for bit (see `history`): similarities are computed in tiles of one fixed
shape (feature_repo/features/similarity.py) and summed over windows of one fixed length.
"""

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.history import MICROSECONDS_A_DAY, Clicks
from feature_repo.features.similarity import rowwise_cosine, tiled_product

__all__ = ["decayed_sums", "rowwise_cosine", "summaries", "window_similarities"]

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]


def window_similarities(candidates: Ints, vectors: Vectors, clicks: Clicks, user: Ints, length: int) -> Vectors:
    """Cosine of each row's candidate to each of its user's last clicks strictly before it, newest first.

    Args:
        candidates: int64 [n], the candidate's row in `vectors`, -1 where it has no vector.
        vectors: float32 [v, d], unit rows.
        clicks: the log's clicks, of which candidate i was what row i showed.
        user: int64 [n], user codes.
        length: how many of the last clicks.

    Returns:
        float32 [n, length], NaN where there are fewer clicks or a vector is missing.
    """
    result = np.full((len(candidates), length), np.nan, np.float32)
    rows = np.flatnonzero((clicks.before > 0) & (candidates >= 0))
    rows = rows[np.argsort(user[rows], kind="stable")]
    for of_user in np.split(rows, np.flatnonzero(np.diff(user[rows])) + 1):
        if len(of_user) == 0:
            continue
        first = clicks.end[of_user[0]] - clicks.before[of_user[0]]
        clicked = candidates[clicks.rows[first : clicks.end[of_user].max()]]
        similar = tiled_product(vectors[candidates[of_user]], vectors[clicked])
        similar[:, clicked < 0] = np.nan
        window = clicks.window(of_user, length)
        within = np.take_along_axis(similar, np.maximum(window - first, 0), axis=1)
        result[of_user] = np.where(window >= 0, within, np.nan)
    return result


def summaries(similarities: Vectors, top: int = 5) -> dict[str, NDArray[np.float32]]:
    """Maximum, mean and mean of the `top` largest of each row of `window_similarities`; NaN for an empty window."""
    missing = np.isnan(similarities)
    count = (~missing).sum(axis=1)
    filled = np.where(missing, np.float32(0), similarities)
    largest = -np.partition(-np.where(missing, np.float32(-2), similarities), top, axis=1)[:, :top]
    largest = np.sort(largest, axis=1)  # one order of summation, whatever the partition left
    some = count > 0
    result = {name: np.full(len(similarities), np.nan, np.float32) for name in ("max", "mean", f"top{top}")}
    result["max"][some] = largest[some, -1]
    result["mean"][some] = filled[some].sum(axis=1) / count[some]
    result[f"top{top}"][some] = np.where(largest > -2, largest, 0)[some].sum(axis=1) / np.minimum(count[some], top)
    return result


def decayed_sums(values: Vectors, clicks: Clicks, user: Ints, time: Ints, half_life_days: float) -> Vectors:
    """Sum over a user's clicks so far, each weighing half as much every `half_life_days`, as of each click.

    Args:
        values: float32 [clicks, d], what was clicked, in the order of `clicks.rows`; NaN rows count as nothing.
        clicks: the log's clicks.
        user: int64 [n]; time: int64 [n], microseconds.

    Returns:
        float32 [clicks, d]: the sum just after each click, weights as of that click.
    """
    sums = np.nan_to_num(values)
    owner, when = user[clicks.rows], time[clicks.rows]
    start = np.maximum.accumulate(np.where(np.diff(owner, prepend=-1) != 0, np.arange(len(owner)), 0))
    rank = np.arange(len(owner)) - start
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(1, rank.max(initial=0) + 2))
    for now in np.split(by_rank, bounds[:-1])[1:]:
        kept = 0.5 ** ((when[now] - when[now - 1]) / (half_life_days * MICROSECONDS_A_DAY))
        sums[now] += sums[now - 1] * kept[:, None].astype(np.float32)
    return sums
