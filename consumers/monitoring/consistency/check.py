"""Whether what is online is what the offline store says: sampled keys, recomputed and compared byte by byte.

The sample is by hash, from both sides: keys that the offline table has (or a log of what was served), and keys that a
scan of the online store finds, so that rows of which the offline store knows nothing are seen too. For each key the
row that should be online is worked out from the offline rows, as of the last materialization: the newest of those of
which the ledger beside the online rows (feature_repo/online/materialization_log.py) says that they were written. It is
packed
anew, as materialization packs it, and must be the same bytes.

    missing     nothing is online, though a row was written
    extra       a row is online of which the offline store has no version: of an unknown key, or of another time
    stale       the row that is online is older than one that was written
    different   it is of the right version and not the same bytes: damaged, changed, or made by another packing

A row that came online by another way than materialization (a stream) may be newer than what was written; then it is
held against its own version offline. It is left alone, and counted as `young`, until that has had `grace` to arrive.

So much is of the rows that are online now. Rows as they were served (served_log.py) are judged by the same rules as of
the time each was served, which the ledger knows: since when each file of the offline table has been online.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from consumers.monitoring.consistency import sampling, served_log
from consumers.monitoring.consistency.row_checks import FAULTS, Verdicts, judge, judge_served
from consumers.monitoring.consistency.served_log import Served
from consumers.monitoring.freshness.event_history import ViewHistory
from feature_repo.arrow import timestamps
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.online import entity_keys, materialization_log
from feature_repo.online.catalog import View
from feature_repo.online.open_store import open_configured_table
from feature_repo.online.table import OnlineTable

EXAMPLES = 5
"""Faults of each kind that are shown by key."""


@dataclass(frozen=True)
class Example:
    """One key at fault."""

    fault: str
    key: str
    """The entity's ids."""
    detail: str


@dataclass(frozen=True)
class ViewConsistency:
    """One view, online beside offline."""

    view: str
    not_judged: str | None = None
    """Why it could not be judged; the figures are then empty."""
    table_is_gone: bool = False
    """Whether that is because its offline table is no longer there, though rows of it were written online."""
    sampled: int = 0
    keys_scanned: int = 0
    """Online keys looked at to find the sample; repeats of a scan included."""
    scan_complete: bool = True
    as_of: datetime | None = None
    """Event time up to which materialization has written the view; None where no ledger says."""
    faults: dict[str, int] = field(default_factory=dict)
    """Keys by fault, of FAULTS."""
    young: int = 0
    pending: int = 0
    """Keys of which a newer row is offline that no materialization has taken yet: late, but not inconsistent."""
    features: dict[str, int] = field(default_factory=dict)
    """Of the different rows: how many differ in which feature."""
    lowest_cosine: float | None = None
    """Of the vectors that differ."""
    examples: list[Example] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Keys at fault."""
        return sum(self.faults.values())

    @property
    def share(self) -> float:
        """Of the sampled keys."""
        return self.wrong / self.sampled if self.sampled else 0.0


@dataclass(frozen=True)
class Consistency:
    """Every view of the project at one moment."""

    now: datetime
    budget: float
    views: list[ViewConsistency]

    @property
    def blind(self) -> str | None:
        """Why no view at all could be judged; None where one was."""
        reasons = [view.not_judged for view in self.views if view.not_judged is not None]
        if len(reasons) < len(self.views):
            return None
        return "; ".join(dict.fromkeys(reasons)) or "there is no view online"

    @property
    def breaches(self) -> list[str]:
        """One line for each view over the budget, or whose table is gone: what is wrong and what to do first."""
        gone = [
            f"{view.view}: its rows are online and its offline table is gone; bring the table back, or take the view "
            "out of feature_repo/views/ and run `feast apply`"
            for view in self.views
            if view.table_is_gone
        ]
        return gone + [_breach(view, self.budget) for view in self.views if view.share > self.budget]


def check(
    settings: Settings,
    *,
    sample: int,
    seed: int,
    budget: float,
    now: datetime,
    grace: timedelta = timedelta(minutes=2),
    at_most: int = 1_000_000,
    served: Path | None = None,
) -> Consistency:
    """Compare every view of the online store with its offline table.

    Args:
        sample: keys of each view.
        seed: of the sample; another seed looks at other keys.
        budget: share of the sampled keys that may be at fault.
        now: with a time zone.
        grace: how long a row may be online before its version is offline.
        at_most: online keys of a view that are looked at for the sample.
        served: Parquet with the ids of what was served (an impressions log): the sample is of those keys alone.

    Raises:
        VitrineError: there is no online store, it does not answer, or `served` cannot be read.
    """
    with _opened(settings) as online:
        views = [
            _check_view(online, view, settings.table(name), sample, seed, now, grace, at_most, served)
            for name, view in sorted(online.catalog.reload().views.items())
        ]
    return Consistency(now, budget, views)


def check_served(
    settings: Settings, log: Path, *, sample: int, budget: float, now: datetime, grace: timedelta
) -> Consistency:
    """Judge rows as they were served, each as of the time it was.

    Args:
        log: as `consume serve --log-served` writes it.
        sample: rows of each view, the last ones.
        budget, now, grace: as of `check`.

    Raises:
        VitrineError: there is no online store, it does not answer, or `log` cannot be read.
    """
    rows = served_log.read(log, sample)
    with _opened(settings) as online:
        views = [
            _check_served(online, view, settings.table(name), rows.get(name), now, grace)
            for name, view in sorted(online.catalog.reload().views.items())
        ]
    return Consistency(now, budget, views)


@contextmanager
def _opened(settings: Settings) -> Iterator[OnlineTable]:
    online = open_configured_table(settings)
    if online is None:
        raise VitrineError(f"{settings.file}: no online store yet; run `feast apply`, then materialize")
    try:
        yield online
    finally:
        online.store.close()


def _check_served(
    online: OnlineTable, view: View, path: Path, served: Served | None, now: datetime, grace: timedelta
) -> ViewConsistency:
    if served is None:
        return ViewConsistency(view.name, not_judged="none of its rows is in the log")
    history = ViewHistory.open(online, view, path)
    if isinstance(history, str):
        return ViewConsistency(view.name, not_judged=history)
    ledger = materialization_log.read_state(online, view.name)
    judged = judge_served(
        online,
        history,
        served,
        ledger,
        now=timestamps.datetime_to_ticks(now, "us"),
        grace=timestamps.timedelta_to_ticks(grace, "us"),
    )
    return _figures(judged, view, sampling.Sample({}, len(served.keys), complete=True), None)


def _check_view(
    online: OnlineTable,
    view: View,
    path: Path,
    sample: int,
    seed: int,
    now: datetime,
    grace: timedelta,
    at_most: int,
    served: Path | None,
) -> ViewConsistency:
    history = ViewHistory.open(online, view, path)
    ledger = materialization_log.read_state(online, view.name)
    if isinstance(history, str):
        gone = ledger is not None and bool(ledger.files) and not delta.exists(path)
        return ViewConsistency(view.name, not_judged=history, table_is_gone=gone)
    if served is None:
        there = sampling.smallest(online.store.scan_keys(history.prefix), sample, seed, at_most=at_most)
        keys = sampling.union([sampling.smallest(history.keys(), sample, seed), there], sample)
    else:
        batches = _served_keys(served, view, history.prefix)
        if batches is None:
            return ViewConsistency(view.name, not_judged=f"{served} has no {' and '.join(dict(view.join_keys))}")
        there = sampling.smallest(batches, sample, seed)
        keys = sampling.union([there], sample)
    judged = judge(
        online,
        history,
        keys,
        ledger,
        now=timestamps.datetime_to_ticks(now, "us"),
        grace=timestamps.timedelta_to_ticks(grace, "us"),
    )
    ends = [window.end for window in ledger.files.values()] if ledger else []
    return _figures(judged, view, there, max(ends, default=None))


def _figures(judged: Verdicts, view: View, there: sampling.Sample, as_of: datetime | None) -> ViewConsistency:
    counted = Counter(fault for fault in judged.fault if fault)
    shown: Counter[str] = Counter()
    examples = []
    for key, fault, detail in zip(judged.keys, judged.fault, judged.detail, strict=True):
        if fault and shown[fault] < EXAMPLES:
            shown[fault] += 1
            examples.append(Example(fault, _entity(key, view), detail))
    return ViewConsistency(
        view=view.name,
        sampled=len(judged.keys),
        keys_scanned=there.seen,
        scan_complete=there.complete,
        as_of=as_of,
        faults={fault: counted.get(fault, 0) for fault in FAULTS},
        young=judged.young,
        pending=judged.pending,
        features=dict(judged.features.most_common()),
        lowest_cosine=min(judged.cosines, default=None),
        examples=examples,
    )


def _served_keys(served: Path, view: View, prefix: bytes) -> Iterator[list[bytes]] | None:
    """The keys of a log; None if it does not say which entities of the view."""
    names = [name for name, _ in view.join_keys]
    try:
        if not names or not set(names) <= set(pq.read_schema(served).names):
            return None
        log = pq.read_table(served, columns=names).drop_null()
    except (OSError, pa.ArrowInvalid) as error:
        raise VitrineError(f"{served}: no Parquet file ({str(error).splitlines()[0]})") from error
    rows = log.group_by(names).aggregate([])
    return iter([entity_keys.make_keys(prefix, [entity_keys.from_arrow(rows[name]) for name in names])])


def _entity(key: bytes, view: View) -> str:
    texts = entity_keys.split_key(key, max(1, len(view.join_keys)))
    return "a long id" if texts is None else " ".join(text.decode(errors="replace") for text in texts)


def _breach(view: ViewConsistency, budget: float) -> str:
    found = ", ".join(f"{count:,} {fault}" for fault, count in view.faults.items() if count)
    worst = max(FAULTS, key=lambda fault: view.faults.get(fault, 0))
    return (
        f"{view.view}: {view.wrong:,} of {view.sampled:,} sampled keys are not as offline ({found}), "
        f"at most {budget:.2%} allowed; {FIRST[worst].format(view=view.view)}"
    )


WRITE_AGAIN = "`cd feature_repo && feast materialize START END --views {view}`"
FIRST = {
    "missing": f"materialize {{view}} again over its whole time: {WRITE_AGAIN}",
    "extra": "see whether a stream's commits fail, or rows were deleted offline alone (`produce forget` takes both)",
    "stale": f"see whether another program writes {{view}}, then {WRITE_AGAIN}",
    "different": f"see whether two deployments write {{view}}, then {WRITE_AGAIN}",
}
"""What to do first about the most frequent fault."""
