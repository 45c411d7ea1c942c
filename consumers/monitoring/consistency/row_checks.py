"""Find the fault of each sampled key by comparing its online row with its offline rows. check.py defines the faults."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from consumers.monitoring.consistency.served_log import ServedRows
from consumers.monitoring.freshness.event_history import EntityVersions, MaterializedRows, ViewHistory
from feature_repo.arrow import timestamps
from feature_repo.online import expected_rows
from feature_repo.online.catalog import View
from feature_repo.online.encode import Dictionaries
from feature_repo.online.materialization_log import MaterializationState
from feature_repo.online.table import OnlineTable
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP

FAULTS = ("missing", "extra", "stale", "different")
MAX_CLOCK_SKEW_US = 1_000_000
"""Microseconds by which the clocks of the server and of materialization may differ."""
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class RowCheckResult:
    """The fault of each of n rows of one view, and what was counted."""

    keys: list[bytes]
    """[n], the rows' online keys, in the order given."""
    faults: list[str | None]
    """[n], one of FAULTS; None if the row is correct or too young to judge."""
    details: list[str]
    """[n], what exactly is wrong; empty if there is no fault."""
    young: int
    """Number of rows that are too new to judge: their version may still arrive in the offline store."""
    pending: int
    """Number of rows with a newer offline row that has not been materialized yet. They may have a fault as well."""
    different_features: Counter[str]
    """Number of "different" rows by the feature that differs. A row with several such features counts for each."""
    cosines: list[float]
    """One for each "different" row in which vectors differ: the lowest cosine of such a vector, online with offline.

    A row has none here if a vector is missing or zero on one side, or the lengths differ, for all vectors that differ.
    """


def check_online_rows(
    online: OnlineTable,
    history: ViewHistory,
    keys: list[bytes],
    state: MaterializationState | None,
    *,
    now_us: int,
    grace_us: int,
) -> RowCheckResult:
    """Compare the online rows of some keys with the offline rows.

    Args:
        online: the online table, from which the rows are read.
        history: the view's offline rows.
        keys: [n], distinct online keys. A key without an online row is "missing" if a row was written that is not older
            than the view's TTL.
        state: the view's materialization log; None expects every offline row up to now to be online.
        now_us: time of the check in microseconds since 1970 UTC.
        grace_us: microseconds that a row may be online before its version is offline.

    Returns:
        One entry for each key, in the order of `keys`.
    """
    # The online rows are read first: what is written meanwhile can only make them look older, never newer.
    rows = online.store.read([keys])[0]
    versions = history.read_versions(keys, state)
    is_known = versions.event_us <= now_us
    is_expected = versions.online if state else is_known
    served = ServedRows(keys, rows, [now_us] * len(keys))
    return _check_rows(online, history, served, versions, is_expected, is_known, now_us - grace_us)


def check_served_rows(
    online: OnlineTable,
    history: ViewHistory,
    served: ServedRows,
    state: MaterializationState | None,
    *,
    now_us: int,
    grace_us: int,
) -> RowCheckResult:
    """Compare rows as they were served with the offline rows as of the time they were served.

    A row is expected once its file had been online for MAX_CLOCK_SKEW_US. Without a materialization log no row is
    expected, because it is unknown since when rows are online.

    Args:
        online: the online table. Only its catalog is read.
        history: the view's offline rows.
        served: the n rows; keys may repeat.
        state: the view's materialization log; None if there is none.
        now_us: time of the check in microseconds since 1970 UTC.
        grace_us: microseconds that a row may be online before its version is offline.

    Returns:
        One entry for each row, in the order of `served`.
    """
    distinct = {key: i for i, key in enumerate(dict.fromkeys(served.keys))}
    requested = np.array([distinct[key] for key in served.keys], np.int64)
    versions = history.read_versions(list(distinct), state).repeat_for(requested)
    served_us = np.array(served.timestamps_us, np.int64)[versions.key_index]
    since_us = MaterializedRows.from_state(history.table, state).find_online_since(versions.row_index)
    is_expected = versions.online & (since_us != timestamps.NULL_TICKS) & (since_us <= served_us - MAX_CLOCK_SKEW_US)
    is_known = (versions.event_us <= served_us) & (versions.created_us <= served_us)
    return _check_rows(online, history, served, versions, is_expected, is_known, now_us - grace_us)


def _check_rows(
    online: OnlineTable,
    history: ViewHistory,
    served: ServedRows,
    versions: EntityVersions,
    is_expected: NDArray[np.bool_],
    is_known: NDArray[np.bool_],
    young_from_us: int,
) -> RowCheckResult:
    """Find the fault of each of n rows.

    Args:
        online: the online table.
        history: the view's offline rows.
        served: the n rows.
        versions: the offline rows of each, with `key_index` its position in `served`.
        is_expected: for each version, whether it should have been online.
        is_known: for each version, whether the offline store had it.
        young_from_us: a row created after this may still arrive in the offline store.
    """
    keys, rows, served_us = served.keys, served.rows, served.timestamps_us
    view, dictionaries = history.view, online.catalog.dictionaries(history.view)
    is_readable = _check_readable(rows, view, dictionaries)
    event_us, created_us = _read_timestamps(rows)
    expected = versions.find_newest(is_expected, len(keys))
    newest = versions.find_newest(is_known, len(keys))
    same_version = versions.find_same(event_us, created_us)
    faults: list[str | None] = [None] * len(keys)
    details = [""] * len(keys)
    young = pending = 0
    to_compare: list[int] = []
    for i in range(len(keys)):
        written = versions.timestamps_of(expected[i])
        row = (int(event_us[i]), int(created_us[i]))
        latest = versions.timestamps_of(newest[i])
        pending += latest is not None and (rows[i] is None or row < latest) and (written is None or written < latest)
        if rows[i] is None:
            if written is not None and not (view.ttl_us and written[0] < served_us[i] - view.ttl_us):
                faults[i], details[i] = "missing", f"{_format_time(written[0])} was written"
        elif not is_readable[i]:
            faults[i], details[i] = "different", "the row is damaged"
        elif written is not None and row < written:
            faults[i], details[i] = "stale", f"{_format_time(row[0])} is online, {_format_time(written[0])} was written"
        elif same_version[i]:
            to_compare.append(i)
        elif row[1] > young_from_us:
            young += 1
        else:
            faults[i], details[i] = "extra", f"the offline store has no version of {_format_time(row[0])}"
    features: Counter[str] = Counter()
    cosines: list[float] = []
    pairs = [(i, same_version[i]) for i in to_compare]
    for i, different, cosine in _find_differences(history, rows, pairs, dictionaries, versions):
        faults[i], details[i] = "different", f"in {', '.join(different) or 'its packing'}"
        features.update(different)
        cosines += [cosine] if np.isfinite(cosine) else []
    return RowCheckResult(keys, faults, details, young, pending, features, cosines)


def _check_readable(rows: Sequence[bytes | None], view: View, dictionaries: Dictionaries) -> NDArray[np.bool_]:
    """Return [n], whether a reader can read each row; False if there is none."""
    present = [i for i, row in enumerate(rows) if row is not None]
    readable = np.zeros(len(rows), np.bool_)
    if present:
        readable[present] = expected_rows.check_readable([row for row in rows if row is not None], view, dictionaries)
    return readable


def _read_timestamps(rows: Sequence[bytes | None]) -> tuple[Int64, Int64]:
    """Return event and created timestamps [n] in microseconds; the smallest int64 if there is no row."""
    return expected_rows.read_timestamps([row if row is not None else _NO_TIMESTAMPS for row in rows])


_NO_TIMESTAMPS = 2 * int(timestamps.NULL_TICKS).to_bytes(8, "little", signed=True)


def _find_differences(
    history: ViewHistory,
    rows: Sequence[bytes | None],
    pairs: Sequence[tuple[int, list[int]]],
    dictionaries: Dictionaries,
    versions: EntityVersions,
) -> Iterator[tuple[int, list[str], float]]:
    """Yield each row that equals none of the offline rows of its version, the features that differ, and the cosine.

    Args:
        history: the view's offline rows.
        rows: the online rows.
        pairs: positions in `rows`, each with the positions in `versions` of the offline rows of its version.
        dictionaries: the view's dictionaries.
        versions: the offline rows.
    """
    flat = [(i, version) for i, same in pairs for version in same]
    if not flat:
        return
    offline = history.read_rows(versions.row_index[[version for _, version in flat]])
    online = [rows[i] or b"" for i, _ in flat]
    expected = _pack_like(history.view, offline, online, dictionaries)
    equal = {i for (i, _), row, packed in zip(flat, online, expected, strict=True) if row == packed}
    different = [n for n, (i, _) in enumerate(flat) if i not in equal]
    if not different:
        return
    comparison = expected_rows.compare_rows(
        [online[n] for n in different], [expected[n] for n in different], history.view, dictionaries
    )
    reported: set[int] = set()
    for position, n in enumerate(different):
        i = flat[n][0]
        if i not in reported:
            reported.add(i)
            features = [name for name, differs in comparison.features.items() if differs[position]]
            yield i, features, float(comparison.cosine[position])


def _pack_like(view: View, offline: pa.Table, online: Sequence[bytes], dictionaries: Dictionaries) -> list[bytes]:
    """Pack offline rows in the layouts of the online rows; in the newest layout if the table lacks a column of it."""
    packed = [b""] * len(online)
    layouts = [expected_rows.find_layout(row, view) or view.layout for row in online]
    columns = set(offline.column_names)
    layouts = [layout if set(layout.fields_by_name) <= columns else view.layout for layout in layouts]
    for layout in dict.fromkeys(layouts):
        positions = [i for i, other in enumerate(layouts) if other == layout]
        rows = offline.take(pa.array(positions))
        layout_rows = expected_rows.pack_rows(layout, rows, EVENT_TIMESTAMP, CREATED_TIMESTAMP, dictionaries)
        for i, row in zip(positions, layout_rows, strict=True):
            packed[i] = row
    return packed


def _format_time(timestamp_us: int) -> str:
    return f"{timestamps.EPOCH + timedelta(microseconds=timestamp_us):%Y-%m-%d %H:%M:%S}"
