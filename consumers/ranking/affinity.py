"""How close a candidate is to what its user clicked before: relations, which raise a ranker where raw vectors do not.

All results depend on earlier rows alone, bit for bit (see `history`). A matrix product of another shape may round
differently, so similarities are computed in tiles of one fixed shape and summed over windows of one fixed length.
"""

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.history import MICROSECONDS_A_DAY, Clicks

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]

TILE = 64


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
        similar = _tiled_product(vectors[candidates[of_user]], vectors[clicked])
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


def rowwise_cosine(left: Ints, left_vectors: Vectors, right: Ints, right_vectors: Vectors) -> NDArray[np.float32]:
    """Cosine of `left_vectors[left[i]]` and `right_vectors[right[i]]` [n]; NaN for an index of -1 or a norm of 0."""
    result = np.full(len(left), np.nan, np.float32)
    left_norm = np.sqrt(np.einsum("ij,ij->i", left_vectors, left_vectors))
    right_norm = np.sqrt(np.einsum("ij,ij->i", right_vectors, right_vectors))
    known = np.flatnonzero((left >= 0) & (right >= 0))
    for block in np.array_split(known, max(1, len(known) // 100_000)):
        a, b = left[block], right[block]
        norm = left_norm[a] * right_norm[b]
        dot = np.einsum("ij,ij->i", left_vectors[a], right_vectors[b])
        result[block] = np.where(norm > 0, dot / np.where(norm > 0, norm, 1), np.nan)
    return result


def _tiled_product(left: Vectors, right: Vectors) -> Vectors:
    """`left @ right.T`, every tile computed by a product of the same shape."""
    padded_left = _padded(left)
    padded_right = _padded(right)
    result = np.empty((len(padded_left), len(padded_right)), np.float32)
    for i in range(0, len(padded_left), TILE):
        for j in range(0, len(padded_right), TILE):
            result[i : i + TILE, j : j + TILE] = padded_left[i : i + TILE] @ padded_right[j : j + TILE].T
    return result[: len(left), : len(right)]


def _padded(rows: Vectors) -> Vectors:
    """The rows, then rows of zeros up to a multiple of TILE."""
    return np.concatenate([rows, np.zeros((-len(rows) % TILE, rows.shape[1]), np.float32)])
