"""What the log says strictly before each row: nothing of the same microsecond, nothing later.

Everything here depends on earlier rows alone, bit for bit: deleting what comes after a row changes nothing of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MICROSECONDS_A_DAY = 86_400_000_000


def count_before(key: Ints, time: Ints, clicked: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Impressions and clicks of the same key strictly before each row.

    Args:
        key: int64 [n], any codes.
        time: int64 [n], microseconds; rows need no order.
        clicked: 0/1 [n].

    Returns:
        Two int64 [n], in the order of the rows.
    """
    order = np.lexsort((time, key))
    sorted_key, sorted_time = key[order], time[order]
    position = np.arange(len(key))
    new_key = np.diff(sorted_key, prepend=sorted_key[:1] - 1) != 0
    new_moment = new_key | (np.diff(sorted_time, prepend=sorted_time[:1] - 1) != 0)
    key_start = np.maximum.accumulate(np.where(new_key, position, 0))
    moment_start = np.maximum.accumulate(np.where(new_moment, position, 0))
    clicks = np.concatenate([[0], np.cumsum(clicked[order], dtype=np.int64)])
    impressions_before = np.empty(len(key), np.int64)
    clicks_before = np.empty(len(key), np.int64)
    impressions_before[order] = moment_start - key_start
    clicks_before[order] = clicks[moment_start] - clicks[key_start]
    return impressions_before, clicks_before


@dataclass(frozen=True)
class ClickIndex:
    """Every click, grouped by user and in time order, and where each row of the log stands among them."""

    rows: Ints
    """Rows of the log that are clicks [clicks], by user, then time; equal times keep the log's order."""
    before: Ints
    """How many clicks the row's user made strictly before the row [n]."""
    end: Ints
    """Position in `rows` just after the user's last click before the row [n]."""

    def window(self, rows: Ints, length: int) -> Ints:
        """Positions in `self.rows` of the last clicks before each of `rows`, newest first, -1 where there are fewer.

        Returns:
            int64 [len(rows), length].
        """
        back = np.arange(1, length + 1)
        return np.where(back <= self.before[rows, None], self.end[rows, None] - back, -1)


def index_clicks(user: Ints, time: Ints, clicked: NDArray[np.integer]) -> ClickIndex:
    """Order the clicks of a log by user and time. Arguments are as in `counts_before`, the user being the key."""
    rows = np.flatnonzero(clicked)
    rows = rows[np.lexsort((rows, time[rows], user[rows]))]
    _, before = count_before(user, time, clicked)
    return ClickIndex(rows=rows, before=before, end=np.searchsorted(user[rows], user, side="left") + before)


def smooth_rate(impressions: Ints, clicks: Ints, prior: NDArray[np.floating], strength: float) -> NDArray[np.float32]:
    """Click rate drawn towards `prior` [n] as if it had been seen `strength` times."""
    return ((clicks + prior * strength) / (impressions + strength)).astype(np.float32)


def compute_days_since_click(clicks: ClickIndex, time: Ints) -> NDArray[np.float32]:
    """Days from the user's last click strictly before each row to the row [n]; NaN where there was none."""
    days = np.full(len(time), np.nan, np.float32)
    known = clicks.before > 0
    days[known] = (time[known] - time[clicks.rows[clicks.end[known] - 1]]) / MICROSECONDS_A_DAY
    return days
