"""What is wrong with each sampled key: its row online beside its rows offline (consistency.py says what each means)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from consumers.monitoring.consistency.served_log import Served
from consumers.monitoring.freshness.event_history import Versions, ViewHistory
from consumers.monitoring.freshness.taken import Taken
from feature_repo.arrow import timestamps
from feature_repo.online import expected_rows, materialization_log
from feature_repo.online.catalog import View
from feature_repo.online.table import OnlineTable
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP

FAULTS = ("missing", "extra", "stale", "different")
CLOCKS = 1_000_000
"""Microseconds by which the clocks of who serves and of who materializes may differ."""
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Verdicts:
    """What was found of each sampled key."""

    keys: list[bytes]
    fault: list[str | None]
    """Of each key, of FAULTS; None where all is well."""
    detail: list[str]
    young: int
    pending: int
    features: Counter[str]
    """Of the different rows: how many differ in which feature."""
    cosines: list[float]


def judge(
    online: OnlineTable,
    history: ViewHistory,
    keys: list[bytes],
    ledger: materialization_log.MaterializationState | None,
    *,
    now: int,
    grace: int,
) -> Verdicts:
    """Hold the row of each key that is online against the offline rows.

    Args:
        ledger: what the online store says has been written; None: every row up to `now` should be online.
        now: microseconds since 1970 UTC.
        grace: microseconds that a row may be online before its version is offline.
    """
    # Online first: what is written meanwhile makes an online row old, never the other way round.
    found = online.store.read([keys])[0]
    versions = history.versions(keys, ledger)
    known = versions.event <= now
    there = versions.online if ledger else known
    return _judge(online, history, Served(keys, found, [now] * len(keys)), versions, there, known, now - grace)


def judge_served(
    online: OnlineTable,
    history: ViewHistory,
    served: Served,
    ledger: materialization_log.MaterializationState | None,
    *,
    now: int,
    grace: int,
) -> Verdicts:
    """Hold rows as they were served against what the offline rows say of the time they were served.

    A row should have been served once its file had been online for CLOCKS; without a ledger nobody knows since when.

    Args:
        ledger, now, grace: as of `judge`.
    """
    distinct = {key: i for i, key in enumerate(dict.fromkeys(served.keys))}
    asked = np.array([distinct[key] for key in served.keys], np.int64)
    versions = history.versions(list(distinct), ledger).of_each(asked)
    at = np.array(served.at, np.int64)[versions.key]
    moment = Taken.of(history.table, ledger).moment(versions.position)
    there = versions.online & (moment != timestamps.NULL_TICKS) & (moment <= at - CLOCKS)
    known = (versions.event <= at) & (versions.created <= at)
    return _judge(online, history, served, versions, there, known, now - grace)


def _judge(
    online: OnlineTable,
    history: ViewHistory,
    served: Served,
    versions: Versions,
    there: NDArray[np.bool_],
    known: NDArray[np.bool_],
    young_from: int,
) -> Verdicts:
    """What is wrong with each of n rows.

    Args:
        versions: the offline rows of each, by its place.
        there: of the versions, those that should have been online.
        known: those that the offline store had.
        young_from: a row made after this, microseconds since 1970 UTC, may still come to the offline store.
    """
    keys, found, at = served.keys, served.rows, served.at
    view, words = history.view, online.catalog.dictionaries(history.view)
    sound = _sound(found, view, words)
    event, created = _stamps(found)
    should, newest = versions.newest(there, len(keys)), versions.newest(known, len(keys))
    same = versions.same(event, created)
    fault: list[str | None] = [None] * len(keys)
    detail = [""] * len(keys)
    young = pending = 0
    compare: list[int] = []
    for i in range(len(keys)):
        wanted = versions.stamps(should[i])
        here = (int(event[i]), int(created[i]))
        late = versions.stamps(newest[i])
        pending += late is not None and (found[i] is None or here < late) and (wanted is None or wanted < late)
        if found[i] is None:
            if wanted is not None and not (view.ttl_us and wanted[0] < at[i] - view.ttl_us):
                fault[i], detail[i] = "missing", f"{_when(wanted[0])} was written"
        elif not sound[i]:
            fault[i], detail[i] = "different", "the row is damaged"
        elif wanted is not None and here < wanted:
            fault[i], detail[i] = "stale", f"{_when(here[0])} is online, {_when(wanted[0])} was written"
        elif same[i]:
            compare.append(i)
        elif here[1] > young_from:
            young += 1
        else:
            fault[i], detail[i] = "extra", f"the offline store has no version of {_when(here[0])}"
    features: Counter[str] = Counter()
    cosines: list[float] = []
    for i, differs, cosine in _differences(history, found, [(i, same[i]) for i in compare], words, versions):
        fault[i], detail[i] = "different", f"in {', '.join(differs) or 'its packing'}"
        features.update(differs)
        cosines += [cosine] if np.isfinite(cosine) else []
    return Verdicts(keys, fault, detail, young, pending, features, cosines)


def _sound(found: Sequence[bytes | None], view: View, words: dict[str, list[str]]) -> NDArray[np.bool_]:
    """[n], whether a reader could read each row; False where there is none."""
    place = [i for i, row in enumerate(found) if row is not None]
    sound = np.zeros(len(found), np.bool_)
    if place:
        sound[place] = expected_rows.check_readable([row for row in found if row is not None], view, words)
    return sound


def _stamps(found: Sequence[bytes | None]) -> tuple[Int64, Int64]:
    """Event and created timestamps [n]; the smallest int64 where there is no row."""
    return expected_rows.read_timestamps([row if row is not None else _NEVER for row in found])


_NEVER = 2 * int(timestamps.NULL_TICKS).to_bytes(8, "little", signed=True)


def _differences(
    history: ViewHistory,
    found: Sequence[bytes | None],
    pairs: Sequence[tuple[int, list[int]]],
    words: dict[str, list[str]],
    versions: Versions,
) -> Iterator[tuple[int, list[str], float]]:
    """Of the keys whose bytes are those of no offline row of their version: the features that differ, the cosine."""
    flat = [(i, place) for i, places in pairs for place in places]
    if not flat:
        return
    rows = history.rows(versions.position[[place for _, place in flat]])
    online = [found[i] or b"" for i, _ in flat]
    wanted = _packed_alike(history.view, rows, online, words)
    equal = {i for (i, _), one, other in zip(flat, online, wanted, strict=True) if one == other}
    wrong = [n for n, (i, _) in enumerate(flat) if i not in equal]
    if not wrong:
        return
    apart = expected_rows.compare_rows([online[n] for n in wrong], [wanted[n] for n in wrong], history.view, words)
    told: set[int] = set()
    for at, n in enumerate(wrong):
        if flat[n][0] not in told:
            told.add(flat[n][0])
            yield flat[n][0], [name for name, differs in apart.features.items() if differs[at]], float(apart.cosine[at])


def _packed_alike(view: View, rows: pa.Table, online: Sequence[bytes], words: dict[str, list[str]]) -> list[bytes]:
    """Offline rows packed in the layouts of the rows that are online; in the newest one where that lacks a column."""
    packed = [b""] * len(online)
    layouts = [expected_rows.find_layout(row, view) or view.layout for row in online]
    layouts = [one if set(one.fields_by_name) <= set(rows.column_names) else view.layout for one in layouts]
    for layout in dict.fromkeys(layouts):
        place = [i for i, one in enumerate(layouts) if one == layout]
        made = expected_rows.pack_rows(layout, rows.take(pa.array(place)), EVENT_TIMESTAMP, CREATED_TIMESTAMP, words)
        for i, row in zip(place, made, strict=True):
            packed[i] = row
    return packed


def _when(ticks: int) -> str:
    return f"{timestamps.EPOCH + timedelta(microseconds=ticks):%Y-%m-%d %H:%M:%S}"
