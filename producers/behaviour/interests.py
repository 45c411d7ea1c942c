"""Computes `user_interest` from clicks: a version of the user after every click, without knowledge of later ones.

Users are processed in groups of about CLICKS_PER_COMMIT clicks, users with similar numbers of clicks together, so that
one array operation advances all users of a group by one click. Each group is one commit; WORKERS groups run at a time.
After a kill, the same command writes what is missing. Versions that a corrected log, or a corrected vector or tag,
changes are written again, and so are those that it takes away: with the clicks that are left.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.features import interest
from feature_repo.features.interest import Clicks, InterestMeans
from feature_repo.offline import delta
from feature_repo.schema import USER_ID
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.behaviour import impression_log, interest_digest, interest_rows
from producers.behaviour.impression_log import ImpressionLog, Int64
from producers.behaviour.product_versions import ProductVersions, read_versions
from producers.input_digest import Digests
from producers.stored_rows import StoredRows
from producers.tags.embedding_rows import choose_encoder_version

STEP = "interests"
CLICKS_PER_COMMIT = 100_000
WORKERS = 2
"""Groups that are computed and written at the same time. Each needs up to 600 MB with vectors of 128 numbers."""


@dataclass(frozen=True)
class InterestSummary:
    """The outcome of one run.

    A version is the state of one user after one click; clicks in one microsecond share a version.
    """

    encoder_version: str
    """The encoder whose vectors were used."""
    users: int
    """Users with at least one click in the log; ids that stand for many people are none."""
    clicks: int
    """Clicks of these users in the log, whether or not their versions were stored before."""
    without_vector: int
    """Clicks on products that had no vector at the time. They count as clicks and enter no mean of vectors."""
    added: int
    """Versions written."""
    already_stored: int
    """Versions of this log that were up to date in the table and were not written again; 0 with `recompute`."""
    withdrawn: int
    """Versions written, besides `added`, at times at which the table has a click and this log has none."""
    refused: int
    """Rows of the log that were refused. They are in the quarantine, perhaps since an earlier run."""
    remarks: tuple[str, ...] = ()
    """What the user should know of the rows of the log that were kept, one line each."""

    def __str__(self) -> str:
        counts = (
            f"{self.added:,} versions of {self.users:,} users added to {schema.INTEREST_TABLE}, "
            f"{self.already_stored:,} up to date, {self.withdrawn:,} corrected because their click is gone; "
            f"{self.clicks:,} clicks, {self.without_vector:,} of them on products without a vector of "
            f"{self.encoder_version} at that time; {self.refused:,} rows of the log quarantined"
        )
        return "\n".join([counts, *(f"  {remark}" for remark in self.remarks)])


def make_interests(
    settings: Settings,
    impressions: Path,
    *,
    encoder_version: str | None,
    recompute: bool,
    now: datetime,
    progress: Callable[[int, int], None],
    table_format: TableFormat = DEFAULT_FORMAT,
    max_lost_share: float = 1.0,
) -> InterestSummary:
    """Write the versions of every user's interest that are not stored yet, or were made from something else.

    A version is up to date if the last created row of its user and time is of this encoder and has its digest
    (interest_digest.py): the same clicks so far, and the same vectors and tags of their products. A click that arrives
    late, is corrected or is taken away changes all later versions of its user, so these are written again; readers use
    the row created last. If the table has a version at a time, between the log's first and last impression, at which a
    user of the log has no click, it is written again as the user's clicks before that time make it. Versions of users
    without a click in the log stay. A row without a digest, of version 0.2 or earlier, is up to date if it has the
    right number of clicks.

    A log without clicks adds nothing, nor does a click without a user. Clicks of one user in one microsecond make one
    version. A click on a product without a vector at that time makes a version too, but does not enter the mean of
    vectors.

    Args:
        settings: the deployment.
        impressions: the whole log, because a version depends on every earlier click of the user. Parquet or CSV with
            the columns of schema.IMPRESSIONS.
        encoder_version: the encoder whose vectors to use; None for the one with the newest vectors.
        recompute: write all versions again, those that are up to date too. Rows that are stored stay.
        now: the created timestamp, with a time zone; later impressions are refused.
        progress: called after each group of users with the number of clicks done and the number of all clicks; never
            for a log without clicks.
        table_format: what the user says about the log.
        max_lost_share: the largest share of the log's rows that may be refused because of one column.

    Returns:
        The counts of this run.

    Raises:
        NotFoundError: the log does not exist; there are no vectors, or none of `encoder_version`.
        InvalidInputError: the log cannot be read, lacks a column, has no usable row or too many refused ones; or
            `encoder_version` is None and the choice is ambiguous, as in the middle of an upgrade.
        ConflictError: other writers committed to the table first too often. Groups that are written stay.
        UnavailableError: a commit cannot be written.
    """
    version = choose_encoder_version(settings, encoder_version)
    log = impression_log.read_log(
        settings,
        impressions,
        step=STEP,
        now=now,
        clicks_only=True,
        table_format=table_format,
        max_lost_share=max_lost_share,
    )
    age_bounds = settings.age_scale.bounds
    order = np.argsort(log.user, kind="stable")  # by user, then time
    starts = np.searchsorted(log.user[order], np.arange(len(log.user_ids) + 1)).astype(np.int64)
    products = read_versions(settings, log.product_ids, log.product, log.timestamp_us, version)
    digests = interest_digest.compute_digests(log, products, order, starts, age_bounds)
    is_last = _is_last_of_timestamp(log, order)
    is_stored, removed = _compare_stored(settings, log, order, starts, digests, version, recompute=recompute)
    is_new = is_last if recompute else is_last & ~is_stored
    without_vector = int((products.embedding < 0).sum())

    def write_group(users: Int64) -> int:
        """Write the versions of some users that are to be written; returns their number of clicks."""
        clicks = np.concatenate([np.arange(starts[user], starts[user + 1]) for user in users])
        new, of_group = np.flatnonzero(is_new[clicks]), np.flatnonzero(np.isin(removed.user, users))
        if len(new) or len(of_group):
            sizes = np.diff(starts)[users]
            shift = np.cumsum(sizes) - sizes - starts[users]  # from a place among all clicks to one among these
            first = np.repeat(np.cumsum(sizes) - sizes, sizes)
            by_user = np.argsort(users)
            shift = shift[by_user[np.searchsorted(users[by_user], removed.user[of_group])]]
            versions = _Versions(
                np.concatenate([log.user[order[clicks[new]]], removed.user[of_group]]),
                np.concatenate([first[new], starts[removed.user[of_group]] + shift]),
                np.concatenate([new, removed.last[of_group] + shift]),
                np.concatenate([log.timestamp_us[order[clicks[new]]] + 1, removed.event_us[of_group]]),
                np.concatenate([digests[clicks[new]], removed.digest[of_group]]),
            )
            rows = _build_rows(log, products, order[clicks], sizes, versions, version, now, age_bounds)
            delta.append(settings.table(schema.INTEREST_TABLE), rows)
        return len(clicks)

    done = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        for clicks in pool.map(write_group, _group_users(starts)):
            done += clicks
            progress(done, len(log))
    added = int(is_new.sum())
    return InterestSummary(
        version,
        users=len(log.user_ids),
        clicks=len(log),
        without_vector=without_vector,
        added=added,
        already_stored=int(is_last.sum()) - added,
        withdrawn=len(removed.user),
        refused=sum(log.refused.values()),
        remarks=log.remarks,
    )


@dataclass(frozen=True)
class _Versions:
    """n versions of users. Each has seen the clicks [first, last] of its user, both inclusive."""

    user: Int64
    """[n], codes of the log."""
    first: Int64
    """[n], where the clicks of the user begin in an array of clicks, sorted by user and time."""
    last: Int64
    """[n], the newest click that the version has seen; `first - 1` if it has seen none."""
    event_us: Int64
    """[n], the event timestamps, microseconds since 1970 UTC."""
    digest: Digests
    """[n]"""

    def take(self, rows: Int64) -> "_Versions":
        """Return some of the versions, by their numbers."""
        return _Versions(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def _build_rows(
    log: ImpressionLog,
    products: ProductVersions,
    clicks: Int64,
    sizes: Int64,
    versions: _Versions,
    encoder_version: str,
    now: datetime,
    age_bounds: Sequence[float],
) -> pa.Table:
    """Return the rows of some versions: those that have seen clicks, then the others.

    Args:
        log: the log.
        products: vectors and tags at each row of the log.
        clicks: rows of the log, sorted by user and time.
        sizes: number of clicks of each user, in the same order; sums to `len(clicks)`.
        versions: what to return; `first` and `last` are places in `clicks`.
        encoder_version: the encoder version.
        now: the created timestamp.
        age_bounds: bounds of the child age stages in months.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)])
    means = interest.compute_interest_histories(
        Clicks(*products.take(clicks), log.timestamp_us[clicks]), starts, age_bounds
    )
    has_clicks = versions.last >= versions.first
    seen, unseen = np.flatnonzero(has_clicks), np.flatnonzero(~has_clicks)
    is_every_click = len(seen) == len(clicks) and bool((versions.last[seen] == np.arange(len(clicks))).all())
    parts = [(seen, means if is_every_click else means.take(versions.last[seen]))]
    if len(unseen):
        parts.append((unseen, InterestMeans.empty(len(unseen), products.vectors.shape[1], len(age_bounds) - 1)))
    tables = []
    for rows, part_means in parts:
        part = versions.take(rows)
        history = interest_rows.ClickHistory(
            log.product_ids, log.product[clicks], log.timestamp_us[clicks], part.first, part.last
        )
        tables.append(
            interest_rows.build_rows(
                user_ids=log.user_ids.take(pa.array(part.user)),
                means=part_means,
                history=history,
                event_us=part.event_us,
                digests=part.digest,
                encoder_version=encoder_version,
                now=now,
            )
        )
    return pa.concat_tables(tables)


def _is_last_of_timestamp(log: ImpressionLog, order: Int64) -> np.ndarray:
    """Return, for clicks sorted by user and time, whether each is the last of its user and microsecond: bool [n]."""
    user, timestamp_us = log.user[order], log.timestamp_us[order]
    same_as_next = (user[:-1] == user[1:]) & (timestamp_us[:-1] == timestamp_us[1:])
    return np.append(~same_as_next, True)[: len(order)]


def _group_users(starts: Int64) -> Iterator[Int64]:
    """Yield groups of users, by falling number of clicks, with about CLICKS_PER_COMMIT clicks each."""
    sizes = np.diff(starts)
    if not len(sizes):
        return
    users = np.argsort(-sizes, kind="stable")
    group = np.cumsum(sizes[users]) // CLICKS_PER_COMMIT
    yield from np.split(users, np.flatnonzero(np.diff(group)) + 1)


def _compare_stored(
    settings: Settings,
    log: ImpressionLog,
    order: Int64,
    starts: Int64,
    digests: Digests,
    version: str,
    *,
    recompute: bool,
) -> tuple[NDArray[np.bool_], _Versions]:
    """Compare the versions of a log with those of the table.

    Args:
        settings: the deployment.
        log: the log, which has clicks only.
        order: [n], its rows by user, then by time.
        starts: [users + 1], the clicks of user u are at [starts[u], starts[u + 1]) of `order`.
        digests: [n], of the version that follows each click.
        version: the encoder version.
        recompute: whether versions whose digest is unknown may be removed too.

    Returns:
        Whether the version that follows each click is up to date in the table, bool [n]. And what is to be written
        because the table has a version at a time at which its user has no click: `first` and `last` are places in
        `order`.
    """
    stored = StoredRows.read(
        settings.table(schema.INTEREST_TABLE),
        log.user_ids,
        entity=USER_ID,
        version_column="encoder_version",
        version=version,
        encoder_version=version,
        count_column="clicks",
    )
    user, time = log.user[order].astype(np.int64), log.timestamp_us[order]
    row = stored.find(user, time + 1)
    is_stored = stored.is_current(row, digests, np.arange(len(order)) - starts[user] + 1)
    is_listed = np.zeros(len(stored.keys), bool)
    is_listed[row[row >= 0]] = True
    owner, event_us = stored.list_keys()
    is_covered = (event_us > log.covered_us[0]) & (event_us <= log.covered_us[1] + 1)
    gone = np.flatnonzero(~is_listed & is_covered & (stored.has_digest | recompute))
    owner, event_us = owner[gone], event_us[gone]
    first = starts[owner]
    clicks_before = [
        np.searchsorted(time[start:end], event)
        for start, end, event in zip(first.tolist(), starts[owner + 1].tolist(), event_us.tolist(), strict=True)
    ]
    last = first + np.array(clicks_before, np.int64) - 1
    digest = np.where(last >= first, digests[last], np.uint64(0)) if len(last) else digests[:0]
    outdated = np.flatnonzero(~(stored.has_digest[gone] & stored.is_current(gone, digest)))
    return is_stored, _Versions(owner, first, last, event_us, digest).take(outdated)
