"""The as-of join: for each row, the newest version of its entity that was valid at the row's time.

Only keys and timestamps take part. The result is one row number per row, so the features of a version (for example a
vector of a few kilobytes) are read once per version and never copied per row.

Versions are grouped by a dense integer key and sorted by (event, created) within the group. A row finds its group by
hash and its version by bisection; all rows of a block are bisected together. The bisection takes log2(versions of the
largest group) steps over blocks that stay in the processor's cache. Key and time are not packed into one integer, which
would overflow 64 bits at a few thousand products over ten years of microseconds, and the rows need not be sorted.

Why NumPy: on 10 million rows over 60,000 versions with string ids, measured alternately on 2 busy cores, DuckDB's ASOF
join took 3.9 times as long (`python -m tests.benchmarks.asof normalised`) and Polars' `join_asof`, which sorts all rows
by time and back, 2.8 times. Neither breaks ties by created timestamp.

Timestamps are compared in nanoseconds if the versions are stored in nanoseconds, else in microseconds. Timestamps
without a time zone are UTC, as in Feast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow import timestamps
from feature_repo.offline import key_encoding

Int64 = NDArray[np.int64]

BLOCK_ROWS = 65_536
"""Rows bisected together: the arrays of one block (half a megabyte each) fit in the second-level cache."""


@dataclass(frozen=True)
class VersionIndex:
    """Versions sorted by key, event timestamp, created timestamp and position.

    Rows with a null key or a null event timestamp are left out.
    """

    codes: key_encoding.KeyDictionary
    """The number of each key. A key may have no versions here, if all of its rows were left out."""
    starts: Int64
    """[keys + 1]: the versions of key number k are at [starts[k], starts[k + 1])."""
    event: Int64
    """[versions] event timestamp in ticks of `unit`."""
    created: Int64
    """[versions] created timestamp in ticks of `unit`; NULL_TICKS if it is null or the table has none."""
    row: Int64
    """[versions] position of the row in the table, counted from 0."""
    unit: str
    """"us" or "ns": length of one tick. Ticks are counted from 1970-01-01 UTC."""


def index_versions(
    key_columns: Sequence[pa.ChunkedArray],
    event: pa.ChunkedArray,
    created: pa.ChunkedArray | None = None,
    *,
    created_before: datetime | None = None,
    is_selected: NDArray[np.bool_] | None = None,
) -> VersionIndex:
    """Build the sorted index for `look_up`.

    Of equal event timestamps, the one with the later created timestamp is newer (null is oldest), then the one at the
    later position. Rows with a null key or a null event timestamp are left out.

    Args:
        key_columns: columns of the join key, [rows] each. Without any, all rows are versions of one entity.
        event: [rows] event timestamps, or dates. Without a time zone they are UTC.
        created: [rows] created timestamps, or dates; None if there are none.
        created_before: leave out rows created at or after this time, and rows without a created timestamp. None leaves
            out none for its created timestamp.
        is_selected: bool [rows], which rows take part; None: all.

    Raises:
        InvalidInputError: `event` or `created` holds no timestamps.
    """
    unit = timestamps.comparison_unit(event)
    event_ticks = timestamps.to_ticks(event, unit)
    created_ticks = (
        np.full(len(event), timestamps.NULL_TICKS) if created is None else timestamps.to_ticks(created, unit)
    )
    codes, code = key_encoding.encode(key_columns, len(event))
    usable = (code >= 0) & (event_ticks != timestamps.NULL_TICKS)
    if is_selected is not None:
        usable &= is_selected
    if created_before is not None:
        usable &= (created_ticks != timestamps.NULL_TICKS) & (
            created_ticks < timestamps.datetime_to_ticks(created_before, unit)
        )
    row = np.flatnonzero(usable)
    row = row[np.lexsort((created_ticks[row], event_ticks[row], code[row]))]
    return VersionIndex(
        codes=codes,
        starts=np.searchsorted(code[row], np.arange(codes.size + 1)).astype(np.int64),
        event=event_ticks[row],
        created=created_ticks[row],
        row=row,
        unit=unit,
    )


def look_up(
    versions: VersionIndex,
    key_columns: Sequence[pa.ChunkedArray],
    at: pa.ChunkedArray,
    *,
    ttl: timedelta | None = None,
    created_by_then: bool = False,
) -> Int64:
    """Find the newest version of each row's key with `at - ttl <= event <= at`, bounds inclusive.

    Of equal event timestamps, the version created last is the newest, then the one at the later position in the table.

    Args:
        versions: the index, as `index_versions` returns it.
        key_columns: as many columns as the index has, in its order, of comparable types.
        at: [rows] timestamps, or dates. Those finer than the unit of the index are rounded down; those without a time
            zone are UTC.
        ttl: how long a version is valid; None or zero: without limit.
        created_by_then: consider only versions created at or before `at`. Versions without a created timestamp are not
            considered.

    Returns:
        int64 [rows] positions, from 0, in the table of versions, in the order of the rows; -1 if there is none, or
        if the key or the timestamp is null.

    Raises:
        InvalidInputError: the keys cannot be compared with those of the index, or `at` holds no timestamps.
    """
    code = key_encoding.encode_like(versions.codes, key_columns, len(at))
    ticks = timestamps.to_ticks(at, versions.unit)
    code[ticks == timestamps.NULL_TICKS] = -1
    lifetime = timestamps.timedelta_to_ticks(ttl, versions.unit) if ttl else None
    older = _older_created_earlier(versions) if created_by_then else None
    positions = np.empty(len(ticks), dtype=np.int64)
    for start in range(0, len(ticks), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        positions[block] = _look_up_block(versions, code[block], ticks[block], lifetime, older)
    return positions


def _look_up_block(
    versions: VersionIndex, code: Int64, ticks: Int64, lifetime: int | None, older: Int64 | None
) -> Int64:
    """Look up the rows of one block; -1 for none.

    Args:
        versions: the index.
        code: [n] key number of each row, -1 for an unknown key.
        ticks: [n] time of each row.
        lifetime: how long a version is valid, in ticks, inclusive; None: without limit.
        older: as `_older_created_earlier` returns it, to use only versions created by the row's time; None: use all.
    """
    first = versions.starts[code]  # for code -1 any number will do: it is masked below
    end = np.where(code >= 0, versions.starts[code + 1], first)
    if not len(versions.row):
        return np.full(len(code), -1, dtype=np.int64)
    low, high = first.copy(), end
    for _ in range(int((high - low).max()).bit_length()):
        middle = (low + high) >> 1
        is_earlier = (low < high) & (versions.event[np.minimum(middle, len(versions.event) - 1)] <= ticks)
        low, high = np.where(is_earlier, middle + 1, low), np.where(is_earlier, high, middle)
    last = low - 1
    if older is not None:
        too_new = np.flatnonzero((last >= first) & _is_created_after(versions, last, ticks))
        while len(too_new):
            last[too_new] = older[last[too_new]]
            position = last[too_new]
            too_new = too_new[(position >= first[too_new]) & _is_created_after(versions, position, ticks[too_new])]
    has_version = (last >= first) & (code >= 0)
    last = np.where(has_version, last, 0)
    if lifetime is not None:
        has_version &= ticks - versions.event[last] <= lifetime
    return np.where(has_version, versions.row[last], -1)


def _is_created_after(versions: VersionIndex, position: Int64, ticks: Int64) -> NDArray[np.bool_]:
    """Return [n]: whether the version at each position was created after a time, or has no created timestamp."""
    created = versions.created[position]
    return (created > ticks) | (created == timestamps.NULL_TICKS)


def _older_created_earlier(versions: VersionIndex) -> Int64:
    """Return [versions] the nearest older version of the same key that was created earlier; -1 if there is none.

    The versions in between were created no earlier than this one, so they are skipped when this one is too new. A table
    that was filled in one night with a year of history is then walked in one step instead of a thousand.
    """
    created = np.where(versions.created == timestamps.NULL_TICKS, np.iinfo(np.int64).max, versions.created)
    first = np.repeat(versions.starts[:-1], np.diff(versions.starts))
    older = np.arange(len(created)) - 1
    older[older < first] = -1
    pending = np.flatnonzero(older >= 0)
    while len(pending):
        pending = pending[created[older[pending]] >= created[pending]]
        older[pending] = older[older[pending]]
        pending = pending[older[pending] >= 0]
    return older
