"""Counts of impressions and clicks strictly before each row of a log.

Rows of the same microsecond do not count for each other. Every value depends on earlier rows alone: deleting later rows
leaves it equal bit for bit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MICROSECONDS_PER_DAY = 86_400_000_000


def count_before(key: Ints, timestamp_us: Ints, clicked: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Count impressions and clicks of the same key strictly before each row; rows of the same time do not count.

    Args:
        key: int64 [n], any codes; -1 is a key like any other.
        timestamp_us: int64 [n], microseconds, in any order.
        clicked: 0 or 1 [n].

    Returns:
        Impressions and clicks, int64 [n] each, in the order of the rows.
    """
    order = np.lexsort((timestamp_us, key))
    sorted_key, sorted_timestamp = key[order], timestamp_us[order]
    position = np.arange(len(key))
    is_new_key = np.diff(sorted_key, prepend=sorted_key[:1] - 1) != 0
    is_new_timestamp = is_new_key | (np.diff(sorted_timestamp, prepend=sorted_timestamp[:1] - 1) != 0)
    key_start = np.maximum.accumulate(np.where(is_new_key, position, 0))
    timestamp_start = np.maximum.accumulate(np.where(is_new_timestamp, position, 0))
    clicks = np.concatenate([[0], np.cumsum(clicked[order], dtype=np.int64)])
    impressions_before = np.empty(len(key), np.int64)
    clicks_before = np.empty(len(key), np.int64)
    impressions_before[order] = timestamp_start - key_start
    clicks_before[order] = clicks[timestamp_start] - clicks[key_start]
    return impressions_before, clicks_before


@dataclass(frozen=True)
class ClickIndex:
    """The clicks of a log, grouped by user and sorted by time, and each row's position among them."""

    rows: Ints
    """Row numbers of the clicks, from 0 [clicks], sorted by user, then time; clicks of equal times keep the log's
    order."""
    before: Ints
    """Number of clicks that the row's user made strictly before the row [n]."""
    end: Ints
    """Position in `rows` just after the last of those clicks; the position of the user's first click, if there are none
    before the row [n]."""

    def window(self, rows: Ints, length: int) -> Ints:
        """Return positions in `self.rows` of the last clicks that each row's user made strictly before the row.

        Args:
            rows: row numbers of the log, from 0, in any order [m].
            length: maximum number of clicks to look back.

        Returns:
            int64 [m, length], the newest click first, -1 where the user has made fewer clicks.
        """
        back = np.arange(1, length + 1)
        return np.where(back <= self.before[rows, None], self.end[rows, None] - back, -1)


def index_clicks(user: Ints, timestamp_us: Ints, clicked: NDArray[np.integer]) -> ClickIndex:
    """Index the clicks of a log by user and time.

    Args:
        user: int64 [n], user codes.
        timestamp_us: int64 [n], microseconds, in any order.
        clicked: 0 or 1 [n].

    Returns:
        The index. Without any click its `rows` is empty and its `before` is 0 in every row.
    """
    rows = np.flatnonzero(clicked)
    rows = rows[np.lexsort((rows, timestamp_us[rows], user[rows]))]
    _, before = count_before(user, timestamp_us, clicked)
    return ClickIndex(rows=rows, before=before, end=np.searchsorted(user[rows], user, side="left") + before)


def smooth_rate(impressions: Ints, clicks: Ints, prior: NDArray[np.floating], strength: float) -> NDArray[np.float32]:
    """Return click rates, smoothed by adding impressions of a known click rate, float32 [n].

    A row without impressions gets its prior.

    Args:
        impressions: impressions of each row [n].
        clicks: clicks of each row [n].
        prior: click rate of the added impressions, from 0 to 1 [n].
        strength: number of added impressions, above 0; need not be whole.
    """
    return ((clicks + prior * strength) / (impressions + strength)).astype(np.float32)


def compute_days_since_click(clicks: ClickIndex, timestamp_us: Ints) -> NDArray[np.float32]:
    """Return the days, with fractions, from the user's last click strictly before each row to the row, float32 [n].

    A click on any product counts. NaN where the user has not clicked before.

    Args:
        clicks: the clicks of the log.
        timestamp_us: int64 [n], time of each row of the same log, in microseconds.
    """
    days = np.full(len(timestamp_us), np.nan, np.float32)
    has_click = clicks.before > 0
    last_click = clicks.rows[clicks.end[has_click] - 1]
    days[has_click] = (timestamp_us[has_click] - timestamp_us[last_click]) / MICROSECONDS_PER_DAY
    return days
