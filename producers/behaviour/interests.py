"""Computes `user_interest` from clicks: a version of the user after every click, without knowledge of later ones.

Users are processed in groups of about CLICKS_PER_COMMIT clicks, users with similar numbers of clicks together, so that
one array operation advances all users of a group by one click. Each group is one commit; WORKERS groups run at a time.
After a kill, the same command writes what is missing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.features import interest
from feature_repo.features.interest import Clicks
from feature_repo.offline import delta
from feature_repo.schema import EVENT_TIMESTAMP, USER_ID
from producers.behaviour import impression_log, interest_rows
from producers.behaviour.impression_log import ImpressionLog, Int64
from producers.behaviour.product_versions import ProductVersions, read_versions
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
    """Users with at least one click in the log."""
    clicks: int
    """Clicks of the log, whether or not their versions were stored before."""
    without_vector: int
    """Clicks on products that had no vector at the time. They count as clicks and enter no mean of vectors."""
    added: int
    """Versions written."""
    already_stored: int
    """Versions of this log that were in the table before and were not written again; 0 with `recompute`."""
    refused: int
    """Rows of the log that were refused. They are in the quarantine, perhaps since an earlier run."""

    def __str__(self) -> str:
        return (
            f"{self.added:,} versions of {self.users:,} users added to {schema.INTEREST_TABLE}, "
            f"{self.already_stored:,} stored before; "
            f"{self.clicks:,} clicks, {self.without_vector:,} of them on products without a vector of "
            f"{self.encoder_version} at that time; {self.refused:,} rows of the log quarantined"
        )


def make_interests(
    settings: Settings,
    impressions: Path,
    *,
    encoder_version: str | None,
    recompute: bool,
    now: datetime,
    progress: Callable[[int, int], None],
) -> InterestSummary:
    """Write the versions of every user's interest that are not stored yet.

    A version is stored if the table has a row with its user, time and number of clicks so far. Clicks that arrive late
    change that number in all later versions of their user, so these are written again; readers use the row created
    last. A log without clicks adds nothing. Clicks of one user in one microsecond make one version. A click on a
    product without a vector at that time makes a version too, but does not enter the mean of vectors.

    Args:
        settings: the deployment.
        impressions: the whole log, because a version depends on every earlier click of the user. Parquet or CSV with
            the columns of schema.IMPRESSIONS.
        encoder_version: the encoder whose vectors to use; None for the one with the newest vectors.
        recompute: write all versions again, for vectors or tags that arrived since. Rows that are stored stay.
        now: the created timestamp, with a time zone; later impressions are refused.
        progress: called after each group of users with the number of clicks done and the number of all clicks; never
            for a log without clicks.

    Returns:
        The counts of this run.

    Raises:
        NotFoundError: the log does not exist; there are no vectors, or none of `encoder_version`.
        InvalidInputError: the log cannot be read, lacks a column or has no usable row; or `encoder_version` is None and
            the choice is ambiguous, as in the middle of an upgrade.
        ConflictError: other writers committed to the table first too often. Groups that are written stay.
        UnavailableError: a commit cannot be written.
    """
    version = choose_encoder_version(settings, encoder_version)
    log = impression_log.read_log(settings, impressions, step=STEP, now=now, clicks_only=True)
    order = np.argsort(log.user, kind="stable")  # by user, then time
    starts = np.searchsorted(log.user[order], np.arange(len(log.user_ids) + 1)).astype(np.int64)
    products = read_versions(settings, log.product_ids, log.product, log.timestamp_us, version)
    is_last = _is_last_of_timestamp(log, order)
    is_new = is_last if recompute else is_last & ~_find_stored(settings, log, order, starts, version)
    without_vector = int((products.embedding < 0).sum())

    def write_group(users: Int64) -> int:
        """Write the new versions of some users; returns their number of clicks."""
        clicks = np.concatenate([np.arange(starts[user], starts[user + 1]) for user in users])
        if is_new[clicks].any():
            rows = _build_rows(log, products, order[clicks], np.diff(starts)[users], is_new[clicks], version, now)
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
        refused=sum(log.refused.values()),
    )


def _build_rows(
    log: ImpressionLog,
    products: ProductVersions,
    clicks: Int64,
    sizes: Int64,
    is_wanted: np.ndarray,
    version: str,
    now: datetime,
) -> pa.Table:
    """Return the rows of the versions that follow the wanted clicks.

    Args:
        log: the log.
        products: vectors and tags at each row of the log.
        clicks: rows of the log, sorted by user and time.
        sizes: number of clicks of each user, in the same order; sums to `len(clicks)`.
        is_wanted: [clicks], whether to return the version that follows the click.
        version: the encoder version.
        now: the created timestamp.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)])
    means = interest.compute_interest_histories(Clicks(*products.take(clicks), log.timestamp_us[clicks]), starts)
    first = np.repeat(starts[:-1], sizes)
    wanted = np.flatnonzero(is_wanted)
    return interest_rows.build_rows(
        user_ids=log.user_ids.take(pa.array(log.user[clicks[wanted]])),
        means=means.take(wanted) if len(wanted) < len(clicks) else means,
        history=interest_rows.ClickHistory(
            log.product_ids, log.product[clicks], log.timestamp_us[clicks], first[wanted], wanted
        ),
        encoder_version=version,
        now=now,
    )


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


def _find_stored(settings: Settings, log: ImpressionLog, order: Int64, starts: Int64, version: str) -> np.ndarray:
    """Return, for clicks sorted by user and time, whether the version that follows is in the table: bool [n]."""
    path = settings.table(schema.INTEREST_TABLE)
    if not delta.exists(path):
        return np.zeros(len(order), bool)
    rows = delta.read(path, [USER_ID, EVENT_TIMESTAMP, "clicks"], where=pc.field("encoder_version") == version)
    user = pc.index_in(rows[USER_ID], value_set=log.user_ids).fill_null(-1).to_numpy()
    clicks, event_us = rows["clicks"].to_numpy(), rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    sizes = np.append(np.diff(starts), 0)  # the last entry is for user -1, who is not in this log
    in_log = (clicks >= 1) & (clicks <= sizes[user])
    index = starts[user[in_log]] + clicks[in_log] - 1
    is_stored = np.zeros(len(order), bool)
    is_stored[index[log.timestamp_us[order[index]] + 1 == event_us[in_log]]] = True
    return is_stored
