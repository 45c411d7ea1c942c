"""Compare online rows with the offline store: sampled keys, computed again from offline rows and compared byte by byte.

Keys are sampled by hash from both sides: the keys of the offline table (or of an impressions log), and the keys that a
scan of the online store returns. So rows that the offline store does not have are found too. The expected online row
of a key is its newest offline row that the materialization log (feature_repo/online/materialization_log.py) records as
written. The row is packed again as materialization packs it, and must be the same bytes. Faults are:

    missing     no row is online, though one was written
    extra       an online row has no version in the offline store: its key or its timestamps are unknown there
    stale       the online row is older than one that was written
    different   the online row has the right version but other bytes: damaged, changed, or packed differently

A row that a stream put online may be newer than what materialization wrote. It is compared with its own version in the
offline store. Until that version has had `grace` to arrive, the row is counted as `young` and not judged.

`check` looks at the rows that are online now. `check_served` applies the same rules to rows as they were served
(served_log.py), each as of the time it was served; the materialization log has since when each file is online.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa

from consumers.monitoring.consistency import sampling, served_log
from consumers.monitoring.consistency.row_checks import FAULTS, RowCheckResult, check_online_rows, check_served_rows
from consumers.monitoring.consistency.served_log import ServedRows
from consumers.monitoring.freshness.event_history import ViewHistory, read_materialization
from feature_repo.arrow import timestamps
from feature_repo.arrow.text import normalize_ids
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError
from feature_repo.location import Location
from feature_repo.offline import delta, production
from feature_repo.offline.input_files import read_table
from feature_repo.offline.validation import parse_text
from feature_repo.online import entity_keys
from feature_repo.online.catalog import View
from feature_repo.online.open_store import open_configured_table
from feature_repo.online.table import OnlineTable
from feature_repo.schema import PRODUCT_ID, USER_ID
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat

EXAMPLES = 5
"""Examples shown of each fault in each view."""


@dataclass(frozen=True)
class FaultExample:
    """One faulty key. Field names are keys of the JSON report."""

    fault: str
    """One of FAULTS."""
    key: str
    """The entity's ids, separated by spaces; "a long id" if the key holds only a hash of them."""
    detail: str
    """What exactly is wrong, in a few words."""


@dataclass(frozen=True)
class ViewConsistency:
    """Result for one view. Field names are keys of the JSON report.

    Faults are "missing", "extra", "stale" and "different"; the module's docstring defines them.
    """

    view: str
    """Name of the view."""
    not_judged: str | None = None
    """Why the view could not be checked; None if it was. The counts are 0 if it could not."""
    table_is_gone: bool = False
    """Whether it could not be checked because its offline table was removed after rows had been written online."""
    sampled: int = 0
    """Number of keys compared, those counted as young included.

    In a result of `check_served`: number of rows, whose keys may repeat.
    """
    keys_scanned: int = 0
    """Keys of the online store or of the log of served ids that were looked at, including repeats."""
    scan_complete: bool = True
    """Whether all of them were looked at; False if the scan of the online store stopped at its limit."""
    as_of: datetime | None = None
    """Event time, UTC, up to which materialization has written the view.

    None if there is no materialization log or it has no file, and in every result of `check_served`.
    """
    faults: dict[str, int] = field(default_factory=dict)
    """Keys by fault, for every fault in FAULTS, 0 if there is none; empty if the view could not be checked."""
    young: int = 0
    """Keys whose online row is too new to judge: its version may still arrive in the offline store."""
    pending: int = 0
    """Keys with a newer offline row that has not been materialized yet. They are late, not inconsistent."""
    features: dict[str, int] = field(default_factory=dict)
    """Number of different rows by the feature that differs, the most frequent first."""
    lowest_cosine: float | None = None
    """Lowest cosine between vectors that differ, from -1 to 1; None if none differ."""
    examples: list[FaultExample] = field(default_factory=list)
    """At most EXAMPLES of each fault."""

    @property
    def faulty(self) -> int:
        """Number of faulty keys, the sum over all faults; 0 if the view could not be checked."""
        return sum(self.faults.values())

    @property
    def faulty_share(self) -> float:
        """Share of the sampled keys that are faulty, from 0 to 1; 0 if none were sampled."""
        return self.faulty / self.sampled if self.sampled else 0.0


@dataclass(frozen=True)
class Consistency:
    """Result for all views. Field names are keys of the JSON report."""

    now: datetime
    """The time of the check."""
    budget: float
    """Share of a view's sampled keys that may be faulty, from 0 to 1, inclusive."""
    views: list[ViewConsistency]
    """Every view of the online store, checked or not, ordered by name."""
    gaps: list[str] = field(default_factory=list)
    """One line for each view that a service names and the online store lacks; one line if it has no views at all."""

    @property
    def no_data(self) -> str | None:
        """The reason why no view could be checked. Several different reasons are joined by "; ".

        None if at least one was checked.
        """
        reasons = [view.not_judged for view in self.views if view.not_judged is not None]
        if len(reasons) < len(self.views):
            return None
        return "; ".join(dict.fromkeys([*self.gaps, *reasons])) or "there is no view online"

    @property
    def breaches(self) -> list[str]:
        """One line for each view that the online store lacks, whose table is gone, or that is over the budget.

        They say what to do first. Ordered by view in each of the three parts; empty if all is well. Other views that
        could not be checked are not breaches, nor is an online store without views: `no_data` names it.
        """
        gone = [
            f"{view.view}: its rows are online, but its offline table is gone; restore the table, or remove the view "
            "from feature_repo/views/ and run `feast apply`"
            for view in self.views
            if view.table_is_gone
        ]
        gaps = self.gaps if self.views else []
        over = [_describe_breach(view, self.budget) for view in self.views if view.faulty_share > self.budget]
        return [*gaps, *gone, *over]


def check(
    settings: Settings,
    *,
    sample: int,
    seed: int,
    budget: float,
    now: datetime,
    grace: timedelta = timedelta(minutes=2),
    max_keys_scanned: int = 1_000_000,
    served: Path | None = None,
    table_format: TableFormat = DEFAULT_FORMAT,
) -> Consistency:
    """Compare a sample of each view's online rows with its offline table. Nothing is written.

    A view that cannot be checked, such as one without an offline table, is no error: its `not_judged` has the reason.

    Args:
        settings: the deployment.
        sample: largest number of distinct keys for each view, at least 1; all keys if there are fewer.
        seed: seed of the sample; another seed selects other keys.
        budget: share of the sampled keys that may be faulty, from 0 to 1, inclusive.
        now: the time of the check, with a UTC offset.
        grace: how long a row may be online before its version is offline.
        max_keys_scanned: number of online keys of a view after which the scan stops.
        served: Parquet or CSV with the ids of served entities (an impressions log); samples only these keys. A view
            whose join keys it lacks is not checked. None samples from all keys, offline and online.
        table_format: what the user says about `served`.

    Raises:
        NotFoundError: there is no online store.
        UnavailableError: the online store does not answer.
        CorruptDataError: the online store's file is damaged.
        InvalidInputError: `served` cannot be read, or the settings of the online store are not valid.
    """
    now_us, grace_us = timestamps.datetime_to_ticks(now, "us"), timestamps.timedelta_to_ticks(grace, "us")
    log = None if served is None else (served, read_table(served, [USER_ID, PRODUCT_ID], table_format=table_format))
    with _open_online(settings) as online:
        catalog = online.catalog.reload()
        version = catalog.production_version or production.read_version(settings.offline)
        views = [
            _check_view(
                online, view, settings.table(name), version, sample, seed, now_us, grace_us, max_keys_scanned, log
            )
            for name, view in sorted(catalog.list_views().items())
        ]
    return Consistency(now, budget, views, catalog.find_gaps())


def check_served(
    settings: Settings, log: Path, *, sample: int, budget: float, now: datetime, grace: timedelta
) -> Consistency:
    """Check rows as they were served, each as of the time it was served.

    A view that cannot be checked, such as one without an offline table, is no error: its `not_judged` has the reason.

    Args:
        settings: the deployment.
        log: file that `consume serve --log-served` wrote.
        sample: largest number of rows of each view, at least 1: the last ones in the log, or all if there are fewer. A
            view without rows is not checked.
        budget: share of the rows that may be faulty, from 0 to 1, inclusive.
        now: the time of the check, with a UTC offset.
        grace: how long a row may be online before its version is offline.

    Raises:
        NotFoundError: there is no online store.
        UnavailableError: the online store does not answer.
        CorruptDataError: the online store's file is damaged.
        InvalidInputError: `log` cannot be read or is not such a file, or the settings of the online store are not
            valid.
    """
    rows = served_log.read(log, sample)
    now_us, grace_us = timestamps.datetime_to_ticks(now, "us"), timestamps.timedelta_to_ticks(grace, "us")
    with _open_online(settings) as online:
        catalog = online.catalog.reload()
        version = catalog.production_version or production.read_version(settings.offline)
        views = [
            _check_served_view(online, view, settings.table(name), version, rows.get(view.name), now_us, grace_us)
            for name, view in sorted(catalog.list_views().items())
        ]
    return Consistency(now, budget, views, catalog.find_gaps())


@contextmanager
def _open_online(settings: Settings) -> Iterator[OnlineTable]:
    online = open_configured_table(settings)
    if online is None:
        raise NotFoundError(f"{settings.file}: there is no online store yet; run `feast apply`, then materialize")
    try:
        yield online
    finally:
        online.store.close()


def _check_served_view(
    online: OnlineTable,
    view: View,
    path: Location,
    encoder_version: str | None,
    served: ServedRows | None,
    now_us: int,
    grace_us: int,
) -> ViewConsistency:
    if served is None:
        return ViewConsistency(path.name, not_judged="the log has no rows of it")
    history = ViewHistory.open(online, view, path, encoder_version)
    if isinstance(history, str):
        return ViewConsistency(path.name, not_judged=history)
    state = read_materialization(online, view.name, path)
    result = check_served_rows(
        online,
        history,
        served,
        state,
        now_us=now_us,
        grace_us=grace_us,
    )
    return _summarize(result, view, path.name, sampling.KeySample({}, len(served.keys), is_complete=True), None)


def _check_view(
    online: OnlineTable,
    view: View,
    path: Location,
    encoder_version: str | None,
    sample: int,
    seed: int,
    now_us: int,
    grace_us: int,
    max_keys_scanned: int,
    served: tuple[Path, pa.Table] | None,
) -> ViewConsistency:
    history = ViewHistory.open(online, view, path, encoder_version)
    state = read_materialization(online, view.name, path)
    if isinstance(history, str):
        is_gone = state is not None and bool(state.files) and not delta.exists(path)
        return ViewConsistency(path.name, not_judged=history, table_is_gone=is_gone)
    if served is None:
        scanned = sampling.sample_keys(online.store.scan_keys(history.prefix), sample, seed, max_keys=max_keys_scanned)
        keys = sampling.merge_samples([sampling.sample_keys(history.read_keys(), sample, seed), scanned], sample)
    else:
        batches = _read_served_keys(*served, view, history.prefix)
        if batches is None:
            return ViewConsistency(path.name, not_judged=f"{served[0]} has no {' and '.join(dict(view.join_keys))}")
        scanned = sampling.sample_keys(batches, sample, seed)
        keys = sampling.merge_samples([scanned], sample)
    result = check_online_rows(
        online,
        history,
        keys,
        state,
        now_us=now_us,
        grace_us=grace_us,
    )
    window_ends = [window.end for window in state.files.values()] if state else []
    return _summarize(result, view, path.name, scanned, max(window_ends, default=None))


def _summarize(
    result: RowCheckResult, view: View, name: str, scanned: sampling.KeySample, as_of: datetime | None
) -> ViewConsistency:
    counts = Counter(fault for fault in result.faults if fault)
    shown: Counter[str] = Counter()
    examples = []
    for key, fault, detail in zip(result.keys, result.faults, result.details, strict=True):
        if fault and shown[fault] < EXAMPLES:
            shown[fault] += 1
            examples.append(FaultExample(fault, _format_key(key, view), detail))
    return ViewConsistency(
        view=name,
        sampled=len(result.keys),
        keys_scanned=scanned.keys_seen,
        scan_complete=scanned.is_complete,
        as_of=as_of,
        faults={fault: counts.get(fault, 0) for fault in FAULTS},
        young=result.young,
        pending=result.pending,
        features=dict(result.different_features.most_common()),
        lowest_cosine=min(result.cosines, default=None),
        examples=examples,
    )


def _read_served_keys(file: Path, log: pa.Table, view: View, prefix: bytes) -> Iterator[list[bytes]] | None:
    """Return the distinct keys in a log, in one batch; None if the log lacks one of the view's join keys."""
    names = [name for name, _ in view.join_keys]
    if not names or not set(names) <= set(log.column_names):
        return None
    ids = pa.table({name: normalize_ids(parse_text(log, name, file)) for name in names}).drop_null()
    rows = ids.group_by(names).aggregate([])
    return iter([entity_keys.make_keys(prefix, [entity_keys.from_arrow(rows[name]) for name in names])])


def _format_key(key: bytes, view: View) -> str:
    texts = entity_keys.split_key(key, max(1, len(view.join_keys)))
    return "a long id" if texts is None else " ".join(text.decode(errors="replace") for text in texts)


def _describe_breach(view: ViewConsistency, budget: float) -> str:
    counts = ", ".join(f"{count:,} {fault}" for fault, count in view.faults.items() if count)
    most_frequent = max(FAULTS, key=lambda fault: view.faults.get(fault, 0))
    return (
        f"{view.view}: {view.faulty:,} of {view.sampled:,} sampled keys differ from the offline store ({counts}), "
        f"at most {budget:.2%} allowed; {REPAIRS[most_frequent].format(view=view.view)}"
    )


WRITE_AGAIN = "`cd feature_repo && feast materialize START END --views {view}`"
REPAIRS = {
    "missing": f"materialize {{view}} again over its whole time range: {WRITE_AGAIN}",
    "extra": "check whether a stream's commits fail, or rows were deleted offline only (`produce forget` deletes both)",
    "stale": f"check whether another program writes {{view}}, then {WRITE_AGAIN}",
    "different": f"check whether two deployments write {{view}}, then {WRITE_AGAIN}",
}
"""What to do first about the most frequent fault."""
