"""The as-of join: for each row asked about, the newest version of its entity that held at that time.

Only keys and timestamps take part. The answer is one row number per row asked, so whatever the versions carry (a
vector of a few kilobytes, say) is read once per version and never copied per row while joining.

Versions are grouped by a dense integer key and sorted by (event, created) within it; a row looks its key up by hash
and bisects its group, all rows at once. The bisection takes log2(versions of the busiest key) steps over blocks that
stay in the processor's cache, needs no packing of key and time into one integer (which overflows 64 bits at a few
thousand products over ten years of microseconds) and no order among the rows asked about.

Why NumPy: 10M rows over 60k versions with string ids, sides in turns on 2 busy cores, took DuckDB's ASOF join 3.9 times
as long (`python -m tests.benchmarks.asof normalised`) and Polars' `join_asof` 2.8 times, which sorts all rows by time
and back again; neither breaks ties by created timestamp, and the order of rows comes free here.

Times are compared in microseconds, or in nanoseconds where the versions are kept in those; times without a zone are
UTC, as Feast takes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.arrow import timestamps
from feature_repo.offline import key_encoding

Int64 = npt.NDArray[np.int64]

BLOCK_ROWS = 65_536
"""Rows bisected at a time: the arrays of one block (half a megabyte each) stay in the second-level cache."""


@dataclass(frozen=True)
class VersionIndex:
    """Versions of entities in the order of the join: by key, then event time, then created time, then position.

    Rows with a null key or a null event time are in no order: nothing can find them.
    """

    codes: key_encoding.KeyDictionary
    starts: Int64
    """[keys + 1]: versions of key k are [starts[k], starts[k + 1])."""
    event: Int64
    """[versions], in `unit`."""
    created: Int64
    """[versions], in `unit`; null, and every row where there is no created timestamp, is `timestamps.NULL_TICKS`."""
    row: Int64
    """[versions]: the row's position in the table."""
    unit: str
    """"us" or "ns"."""


def index_versions(
    key_columns: Sequence[pa.ChunkedArray],
    event: pa.ChunkedArray,
    created: pa.ChunkedArray | None = None,
    *,
    created_before: datetime | None = None,
) -> VersionIndex:
    """Sort versions for `look_up`.

    Equal event times are broken by created time (later is newer, null oldest), then by position (later is newer).

    Args:
        key_columns: the join key's columns; none means that all rows are versions of one thing.
        created_before: leave out rows created at or after this time, and rows whose created time is unknown.
    """
    unit = timestamps.comparison_unit(event)
    event_ticks = timestamps.to_ticks(event, unit)
    created_ticks = (
        np.full(len(event), timestamps.NULL_TICKS) if created is None else timestamps.to_ticks(created, unit)
    )
    codes, code = key_encoding.encode(key_columns, len(event))
    usable = (code >= 0) & (event_ticks != timestamps.NULL_TICKS)
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
    """Find, for each row, the newest version with `at - ttl <= event <= at`.

    Args:
        key_columns: as many as the versions have, in their order, of a comparable type.
        at: [rows] the time asked about. Finer than the versions' unit is rounded down to it.
        ttl: how long a version holds; None and zero mean for ever.
        created_by_then: only versions created at or before `at` count (those of unknown created time do not).

    Returns:
        [rows] int64 positions in the table of versions, in the order of the rows; -1 where nothing held, and where
        the key or the time is null.
    """
    code = key_encoding.encode_like(versions.codes, key_columns, len(at))
    asked = timestamps.to_ticks(at, versions.unit)
    code[asked == timestamps.NULL_TICKS] = -1
    lifetime = timestamps.timedelta_to_ticks(ttl, versions.unit) if ttl else None
    older = _older_created_earlier(versions) if created_by_then else None
    found = np.empty(len(asked), dtype=np.int64)
    for start in range(0, len(asked), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        found[block] = _look_up_block(versions, code[block], asked[block], lifetime, older)
    return found


def _look_up_block(
    versions: VersionIndex, code: Int64, asked: Int64, lifetime: int | None, older: Int64 | None
) -> Int64:
    first = versions.starts[code]  # of code -1 too: any number will do, it is masked below
    end = np.where(code >= 0, versions.starts[code + 1], first)
    if not len(versions.row):
        return np.full(len(code), -1, dtype=np.int64)
    low, high = first.copy(), end
    for _ in range(int((high - low).max()).bit_length()):
        middle = (low + high) >> 1
        held = (low < high) & (versions.event[np.minimum(middle, len(versions.event) - 1)] <= asked)
        low, high = np.where(held, middle + 1, low), np.where(held, high, middle)
    last = low - 1
    if older is not None:
        unseen = np.flatnonzero((last >= first) & _created_after(versions, last, asked))
        while len(unseen):
            last[unseen] = older[last[unseen]]
            here = last[unseen]
            unseen = unseen[(here >= first[unseen]) & _created_after(versions, here, asked[unseen])]
    found = (last >= first) & (code >= 0)
    last = np.where(found, last, 0)
    if lifetime is not None:
        found &= asked - versions.event[last] <= lifetime
    return np.where(found, versions.row[last], -1)


def _created_after(versions: VersionIndex, position: Int64, asked: Int64) -> npt.NDArray[np.bool_]:
    created = versions.created[position]
    return (created > asked) | (created == timestamps.NULL_TICKS)


def _older_created_earlier(versions: VersionIndex) -> Int64:
    """[versions]: the nearest older version of the same key that was created earlier, -1 if there is none.

    When a version was not created yet, those between it and this one were not either, so that a table filled in one
    night with a year of history is walked in one step and not in a thousand.
    """
    created = np.where(versions.created == timestamps.NULL_TICKS, np.iinfo(np.int64).max, versions.created)
    first = np.repeat(versions.starts[:-1], np.diff(versions.starts))
    older = np.arange(len(created)) - 1
    older[older < first] = -1
    unsettled = np.flatnonzero(older >= 0)
    while len(unsettled):
        unsettled = unsettled[created[older[unsettled]] >= created[unsettled]]
        older[unsettled] = older[older[unsettled]]
        unsettled = unsettled[older[unsettled] >= 0]
    return older
