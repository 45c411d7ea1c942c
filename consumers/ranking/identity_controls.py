"""Identity-only counterparts of the relational features, for the baseline.

A feature that relates a candidate to its user's history also says how much the user clicked, how recently, and whether
the same product, category or brand was clicked, even if the vectors are those of another product. The baseline gets
that information by identity alone, so that whatever a relation adds to it comes from content.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.click_counts import MICROSECONDS_PER_DAY, ClickIndex, Ints, index_clicks

WINDOW = 50
"""Number of last clicks that are counted. The affinity features look back as far."""
HALF_LIFE_DAYS = 14.0
"""Age at which a click counts half."""


def compute_identity_controls(
    user: Ints, timestamp_us: Ints, clicked: NDArray[np.integer], identities: Mapping[str, Ints]
) -> dict[str, NDArray[np.float32]]:
    """Return `recent_clicks` and, for each identity, `same_NAME_clicked`, from clicks strictly before each row.

    Args:
        user: user codes [n].
        timestamp_us: microseconds [n], in any order.
        clicked: 0 or 1 [n].
        identities: name to the codes [n] that each row showed; -1 (unknown) equals nothing, not even another -1.

    Returns:
        Feature name to float32 [n], never NaN: `recent_clicks`, the user's clicks with older ones weighing less, and
        `same_NAME_clicked`, how many of the user's last WINDOW clicks showed the row's own code.
    """
    clicks = index_clicks(user, timestamp_us, clicked)
    features = {"recent_clicks": sum_recent_clicks(clicks, user, timestamp_us)}
    for name, codes in identities.items():
        features[f"same_{name}_clicked"] = count_same_clicked(codes, clicks, WINDOW)
    return features


def count_same_clicked(codes: Ints, clicks: ClickIndex, length: int) -> NDArray[np.float32]:
    """Count how many of the user's last clicks strictly before each row have the row's own code.

    Args:
        codes: code that each row of the log showed [n]; -1 for unknown.
        clicks: the clicks of the same log.
        length: maximum number of last clicks that are looked at.

    Returns:
        float32 [n], from 0 to `length`; 0 for code -1 and for users without earlier clicks.
    """
    click_codes = codes[clicks.rows]
    width = len(click_codes) + 1
    keys = np.sort(click_codes * width + np.arange(len(click_codes)))  # the positions of each code are contiguous
    first = clicks.end - np.minimum(clicks.before, length)
    same = np.searchsorted(keys, codes * width + clicks.end) - np.searchsorted(keys, codes * width + first)
    return np.where(codes >= 0, same, 0).astype(np.float32)


def sum_recent_clicks(clicks: ClickIndex, user: Ints, timestamp_us: Ints) -> NDArray[np.float32]:
    """Sum the user's clicks strictly before each row; a click weighs 1 at its own time and half HALF_LIFE_DAYS later.

    Args:
        clicks: the clicks of the log.
        user: user codes of the same log [n].
        timestamp_us: time of each row, in microseconds [n].

    Returns:
        float32 [n]; 0 for users without earlier clicks.
    """
    owner, click_timestamp = user[clicks.rows], timestamp_us[clicks.rows]
    weight = np.zeros(len(click_timestamp))
    start = np.maximum.accumulate(np.where(np.diff(owner, prepend=-1) != 0, np.arange(len(owner)), 0))
    rank = np.arange(len(owner)) - start
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(rank.max(initial=-1) + 2))
    for first, last in pairwise(bounds):
        current = by_rank[first:last]
        weight[current] = 1.0
        if first:
            weight[current] += weight[current - 1] * _decay(click_timestamp[current] - click_timestamp[current - 1])
    result = np.zeros(len(user), np.float32)
    with_click = np.flatnonzero(clicks.before > 0)
    last_click = clicks.end[with_click] - 1
    result[with_click] = weight[last_click] * _decay(timestamp_us[with_click] - click_timestamp[last_click])
    return result


def _decay(microseconds: Ints) -> NDArray[np.float64]:
    """The weight of clicks of some ages: 1 for age 0, half for HALF_LIFE_DAYS."""
    return np.asarray(0.5 ** (microseconds / (HALF_LIFE_DAYS * MICROSECONDS_PER_DAY)))
