"""Cosines of candidates to the products that their users clicked.

In a log, the results of a row depend on that row and earlier ones only, bit for bit: deleting later rows changes
nothing. Matrix products of different shapes may round differently, so a log's cosines are computed in tiles of one
fixed shape.
"""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]

TILE = 64
"""Rows and columns of one matrix product."""


def compute_norms(vectors: Vectors) -> Vectors:
    """Return float32 [n], the Euclidean norms of rows [n, d]; NaN for rows with NaN and for rows of zeros."""
    norm: Vectors = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    norm[~(norm > 0)] = np.nan
    return norm


def normalize_rows(vectors: Vectors) -> Vectors:
    """Return a copy of rows [n, d] scaled to unit length; rows with NaN and rows of zeros become NaN."""
    return vectors / compute_norms(vectors)[:, None]


def compute_history_cosines(vectors: Vectors, candidate: Ints, history: Ints, user: Ints) -> Vectors:
    """Return the cosines of each row's candidate to the vectors of the row's history, for a log of many users.

    Args:
        vectors: float32 [v, d]; v may be 0, then all cosines are NaN.
        candidate: int64 [n], index of the candidate in `vectors`; -1 if it has no vector.
        history: int64 [n, h], indices in `vectors` of the products that the user clicked last before the row; -1 for
            none.
        user: int64 [n], any code of the user. The rows of each user are in time order.

    Returns:
        float32 [n, h], in the order of `candidate` and `history`; NaN where the candidate or the clicked product has no
        vector, or a vector of zeros.
    """
    result = np.full(history.shape, np.nan, np.float32)
    if not len(vectors):
        return result
    rows = np.flatnonzero((candidate >= 0) & (history >= 0).any(axis=1))
    rows = rows[np.argsort(user[rows], kind="stable")]
    directions = normalize_rows(vectors)
    for of_user in np.split(rows, np.flatnonzero(np.diff(user[rows])) + 1) if len(rows) else []:
        left, left_index = _unique_in_order(candidate[of_user])
        right, right_index = _unique_in_order(history[of_user].ravel())
        cosines = multiply_in_tiles(directions[left], directions[right])
        cosines[:, right < 0] = np.nan
        result[of_user] = cosines[left_index[:, None], right_index.reshape(len(of_user), -1)]
    return result


def compute_window_cosines(
    vectors: Vectors, candidate: Ints, clicked: Ints, before: Ints, end: Ints, user: Ints, length: int
) -> Vectors:
    """Return the cosines of each row's candidate to the user's last clicks before the row.

    The result equals `compute_history_cosines` of the same histories and takes a third of the time.

    Args:
        vectors: float32 [v, d]; v may be 0, then all cosines are NaN.
        candidate: int64 [n], index of the candidate in `vectors`; -1 if it has no vector.
        clicked: int64 [c], index in `vectors` of every clicked product; -1 if it has no vector. The clicks of a user
            are contiguous and in time order.
        before: int64 [n], number of clicks that the row's user made before the row.
        end: int64 [n], position in `clicked` just after the last of those clicks.
        user: int64 [n], any code of the user. The rows of each user are in time order.
        length: number of clicks in a history, at most.

    Returns:
        float32 [n, length], newest click first; NaN where the candidate or the click has no vector, and beyond the
        user's first click.
    """
    result = np.full((len(candidate), length), np.nan, np.float32)
    if not len(vectors):
        return result
    rows = np.flatnonzero((candidate >= 0) & (before > 0))
    rows = rows[np.argsort(user[rows], kind="stable")]
    directions = np.concatenate([normalize_rows(vectors), np.full((1, vectors.shape[1]), np.nan, np.float32)])
    for of_user in np.split(rows, np.flatnonzero(np.diff(user[rows])) + 1) if len(rows) else []:
        left, index = _unique_in_order(candidate[of_user])
        clicks = clicked[end[of_user[0]] - before[of_user[0]] : end[of_user[-1]]]
        # Columns are clicks in time order, so that later clicks do not move earlier ones; NaN before the first click.
        cosines = np.full((len(left), length + len(clicks)), np.nan, np.float32)
        cosines[:, length:] = multiply_in_tiles(directions[left], directions[clicks])
        windows = np.lib.stride_tricks.sliding_window_view(cosines, length, axis=1)
        result[of_user] = windows[index, before[of_user], ::-1]
    return result


def _unique_in_order(values: Ints) -> tuple[Ints, Ints]:
    """Return the distinct values in order of first appearance, and the index of each value among them.

    Later rows append to the end and move nothing. A product may round differently at another position of its tile.
    """
    distinct, first, index = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return distinct[order], rank[index]


def compute_pair_cosines(left: Ints, left_vectors: Vectors, right: Ints, right_vectors: Vectors) -> NDArray[np.float32]:
    """Return the cosine of each pair `left_vectors[left[i]]` and `right_vectors[right[i]]`.

    Args:
        left: int64 [n], indices into `left_vectors`; -1 for none.
        left_vectors: float32 [l, d]; need not be unit vectors.
        right: int64 [n], indices into `right_vectors`; -1 for none.
        right_vectors: float32 [r, d]; need not be unit vectors.

    Returns:
        float32 [n]; NaN where an index is -1, or a vector is zero or has NaN.
    """
    result = np.full(len(left), np.nan, np.float32)
    left_norm = np.sqrt(np.einsum("ij,ij->i", left_vectors, left_vectors))
    right_norm = np.sqrt(np.einsum("ij,ij->i", right_vectors, right_vectors))
    present = np.flatnonzero((left >= 0) & (right >= 0))
    for block in np.array_split(present, max(1, len(present) // 100_000)):
        a, b = left[block], right[block]
        norm = left_norm[a] * right_norm[b]
        dot = np.einsum("ij,ij->i", left_vectors[a], right_vectors[b])
        result[block] = np.where(norm > 0, dot / np.where(norm > 0, norm, 1), np.nan)
    return result


def multiply_in_tiles(left: Vectors, right: Vectors) -> Vectors:
    """Return `left @ right.T`, float32 [l, r], computed tile by tile with products of one shape.

    So an element does not depend on how many rows follow it. Either matrix may have no rows.

    Args:
        left: float32 [l, d].
        right: float32 [r, d].
    """
    padded_left = _pad(left)
    padded_right = _pad(right)
    result = np.empty((len(padded_left), len(padded_right)), np.float32)
    for i in range(0, len(padded_left), TILE):
        for j in range(0, len(padded_right), TILE):
            result[i : i + TILE, j : j + TILE] = padded_left[i : i + TILE] @ padded_right[j : j + TILE].T
    return result[: len(left), : len(right)]


def _pad(rows: Vectors) -> Vectors:
    """Append rows of zeros up to a multiple of TILE rows."""
    return np.concatenate([rows, np.zeros((-len(rows) % TILE, rows.shape[1]), np.float32)])
