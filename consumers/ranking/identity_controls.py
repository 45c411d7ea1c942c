"""Identity-only twins of the relational features, for the baseline.

A feature of a candidate and its user's history still carries how much the user clicked, how recently, and whether the
very same product, category or brand was among it, even where the vectors are another product's. The baseline gets
all of that by identity alone, so that what a relation adds to it is content.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.click_counts import MICROSECONDS_A_DAY, ClickIndex, Ints, index_clicks

WINDOW = 50
"""How many of the last clicks are counted; the affinity features look back as far."""
HALF_LIFE_DAYS = 14.0
"""After how long a click counts half."""


def compute_identity_controls(
    user: Ints, time: Ints, clicked: NDArray[np.integer], identities: Mapping[str, Ints]
) -> dict[str, NDArray[np.float32]]:
    """`recent_clicks` and, for each identity, `same_NAME_clicked`, float32 [n], of what came strictly before each row.

    Args:
        user: int64 [n], codes; time: int64 [n], microseconds; clicked: 0/1 [n].
        identities: name to codes [n] of what each row showed, -1 where it is not known: such rows are like nothing.
    """
    clicks = index_clicks(user, time, clicked)
    features = {"recent_clicks": sum_recent_clicks(clicks, user, time)}
    for name, codes in identities.items():
        features[f"same_{name}_clicked"] = count_same_clicked(codes, clicks, WINDOW)
    return features


def count_same_clicked(codes: Ints, clicks: ClickIndex, length: int) -> NDArray[np.float32]:
    """How many of the user's last `length` clicks before each row were of the row's own code [n]; -1 equals nothing."""
    of_clicks = codes[clicks.rows]
    width = len(of_clicks) + 1
    places = np.sort(of_clicks * width + np.arange(len(of_clicks)))  # where each code was clicked lies together
    first = clicks.end - np.minimum(clicks.before, length)
    same = np.searchsorted(places, codes * width + clicks.end) - np.searchsorted(places, codes * width + first)
    return np.where(codes >= 0, same, 0).astype(np.float32)


def sum_recent_clicks(clicks: ClickIndex, user: Ints, time: Ints) -> NDArray[np.float32]:
    """The user's clicks strictly before each row [n], each counting half as much every HALF_LIFE_DAYS."""
    owner, when = user[clicks.rows], time[clicks.rows]
    weight = np.zeros(len(when))
    start = np.maximum.accumulate(np.where(np.diff(owner, prepend=-1) != 0, np.arange(len(owner)), 0))
    rank = np.arange(len(owner)) - start
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(rank.max(initial=-1) + 2))
    for first, last in pairwise(bounds):
        now = by_rank[first:last]
        weight[now] = 1.0
        if first:
            weight[now] += weight[now - 1] * _kept(when[now] - when[now - 1])
    result = np.zeros(len(user), np.float32)
    some = np.flatnonzero(clicks.before > 0)
    last_click = clicks.end[some] - 1
    result[some] = weight[last_click] * _kept(time[some] - when[last_click])
    return result


def _kept(microseconds: Ints) -> NDArray[np.float64]:
    return np.asarray(0.5 ** (microseconds / (HALF_LIFE_DAYS * MICROSECONDS_A_DAY)))
