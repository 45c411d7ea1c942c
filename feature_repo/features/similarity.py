"""Cosines of candidates to what their users clicked.

Of a log, all results depend on their own row alone, bit for bit: deleting what comes after a row changes nothing of
it. A matrix product of another shape may round differently, so a log's similarities are computed in tiles of one
fixed shape.
"""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]

TILE = 64


def compute_norms(vectors: Vectors) -> Vectors:
    """Of the rows [n]; NaN of NaN rows, and of rows of zeros."""
    norm: Vectors = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    norm[~(norm > 0)] = np.nan
    return norm


def normalize_rows(vectors: Vectors) -> Vectors:
    """The rows of unit length [n, d]; NaN rows, and rows of zeros, are NaN."""
    return vectors / compute_norms(vectors)[:, None]


def compute_history_cosines(vectors: Vectors, candidate: Ints, history: Ints, user: Ints) -> Vectors:
    """Cosine of each row's candidate to each vector of its own history, for a log of many users.

    Args:
        vectors: float32 [v, d].
        candidate: int64 [n], the candidate's row in `vectors`, -1 where it has none.
        history: int64 [n, h], rows in `vectors`, -1 where there is none.
        user: int64 [n], any codes: rows of one user share most of their history. Each user's rows are in time order.

    Returns:
        float32 [n, h], NaN where one is missing.
    """
    result = np.full(history.shape, np.nan, np.float32)
    if not len(vectors):
        return result
    rows = np.flatnonzero((candidate >= 0) & (history >= 0).any(axis=1))
    rows = rows[np.argsort(user[rows], kind="stable")]
    directions = normalize_rows(vectors)
    for of_user in np.split(rows, np.flatnonzero(np.diff(user[rows])) + 1) if len(rows) else []:
        left, left_place = _as_they_appear(candidate[of_user])
        right, right_place = _as_they_appear(history[of_user].ravel())
        similar = multiply_in_tiles(directions[left], directions[right])
        similar[:, right < 0] = np.nan
        result[of_user] = similar[left_place[:, None], right_place.reshape(len(of_user), -1)]
    return result


def compute_window_cosines(
    vectors: Vectors, candidate: Ints, clicked: Ints, before: Ints, end: Ints, user: Ints, length: int
) -> Vectors:
    """`cosines_of_rows` of histories that are the last clicks of each user before each row, in a third of the time.

    Args:
        vectors: float32 [v, d].
        candidate: int64 [n], the candidate's row in `vectors`, -1 where it has none.
        clicked: int64 [c], likewise of every click; those of a user lie together, in time order.
        before: int64 [n], how many clicks each row's user made before it.
        end: int64 [n], where the last of those ends in `clicked`.
        user: int64 [n], any codes. Each user's rows are in time order.
        length: of a history, at most.

    Returns:
        float32 [n, length], newest first; NaN where one is missing.
    """
    result = np.full((len(candidate), length), np.nan, np.float32)
    if not len(vectors):
        return result
    rows = np.flatnonzero((candidate >= 0) & (before > 0))
    rows = rows[np.argsort(user[rows], kind="stable")]
    directions = np.concatenate([normalize_rows(vectors), np.full((1, vectors.shape[1]), np.nan, np.float32)])
    for of_user in np.split(rows, np.flatnonzero(np.diff(user[rows])) + 1) if len(rows) else []:
        left, place = _as_they_appear(candidate[of_user])
        clicks = clicked[end[of_user[0]] - before[of_user[0]] : end[of_user[-1]]]
        # A later click adds to the end and moves nothing; before the first click lies nothing.
        similar = np.full((len(left), length + len(clicks)), np.nan, np.float32)
        similar[:, length:] = multiply_in_tiles(directions[left], directions[clicks])
        windows = np.lib.stride_tricks.sliding_window_view(similar, length, axis=1)
        result[of_user] = windows[place, before[of_user], ::-1]
    return result


def _as_they_appear(values: Ints) -> tuple[Ints, Ints]:
    """The distinct values in the order of their first appearance, and where each of `values` is among them.

    A later row adds to the end and moves nothing: a product rounds differently at another place of its tile.
    """
    distinct, first, place = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return distinct[order], rank[place]


def compute_pair_cosines(left: Ints, left_vectors: Vectors, right: Ints, right_vectors: Vectors) -> NDArray[np.float32]:
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


def multiply_in_tiles(left: Vectors, right: Vectors) -> Vectors:
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
