"""Clicks to `user_interest`: a version of the user after every click, from what was known when it was made.

The users are taken in groups that click about equally often, some hundred thousand clicks at a time: one step of
arithmetic for all users of a group at once, one commit a group, two groups at a time. Killed, the same command writes
what is missing.
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
from producers.behaviour import interest_rows
from producers.behaviour import log as logs
from producers.behaviour.log import Int64, Log
from producers.behaviour.product_versions import ProductVersions, read_versions
from producers.tags.embedding_rows import choose_encoder_version

STEP = "interests"
CLICKS_A_COMMIT = 100_000
AT_ONCE = 2
"""Groups computed and written at the same time, on as many cores: each takes up to 600 MB at 128 numbers a vector."""


@dataclass(frozen=True)
class Made:
    """What came of one run."""

    encoder_version: str
    users: int
    clicks: int
    without_vector: int
    """Clicks on products that had no vector then: they count as clicks, and in no mean."""
    added: int
    """Versions written."""
    known: int
    """Versions that were there already."""
    refused: int

    def __str__(self) -> str:
        return (
            f"{self.added:,} versions of {self.users:,} users added to {schema.INTEREST_TABLE}, "
            f"{self.known:,} known already; "
            f"{self.clicks:,} clicks, {self.without_vector:,} of them on products without a vector of "
            f"{self.encoder_version} at that time; {self.refused:,} rows of the log quarantined"
        )


def make_interests(
    settings: Settings,
    impressions: Path,
    *,
    encoder_version: str | None,
    again: bool,
    now: datetime,
    progress: Callable[[int, int], None],
) -> Made:
    """Write the versions of every user's interest that are not known yet.

    A version is known if it has the same user, time and number of clicks so far: clicks that arrive late make all
    later versions of their user anew, and the newest created one holds.

    Args:
        settings: the deployment.
        impressions: the log, whole: a version depends on every click before it.
        encoder_version: whose vectors to use; None for the newest.
        again: write all versions anew, for vectors or tags that have come since.
        now: the created timestamp; later impressions are refused.
        progress: told how many of how many clicks are done.

    Raises:
        VitrineError: the log cannot be read; there are no vectors, or the version is unknown or ambiguous.
    """
    version = choose_encoder_version(settings, encoder_version)
    log = logs.read(settings, impressions, step=STEP, now=now, clicks_only=True)
    order = np.argsort(log.user, kind="stable")  # by user, then time
    starts = np.searchsorted(log.user[order], np.arange(len(log.users) + 1)).astype(np.int64)
    products = read_versions(settings, log.products, log.product, log.time, version)
    last = _last_of_moment(log, order)
    new = last if again else last & ~_known(settings, log, order, starts, version)
    missing = int((products.embedding < 0).sum())
    done, total = 0, len(log)

    def write(group: Int64) -> int:
        place = np.concatenate([np.arange(starts[user], starts[user + 1]) for user in group])
        if new[place].any():
            rows = _rows(log, products, order[place], np.diff(starts)[group], new[place], version, now)
            delta.append(settings.table(schema.INTEREST_TABLE), rows)
        return len(place)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for clicks in pool.map(write, _groups(starts)):
            done += clicks
            progress(done, total)
    added = int(new.sum())
    return Made(version, len(log.users), total, missing, added, int(last.sum()) - added, sum(log.refused.values()))


def _rows(
    log: Log, products: ProductVersions, clicks: Int64, sizes: Int64, wanted: np.ndarray, version: str, now: datetime
) -> pa.Table:
    """The versions just after `clicks` (by user, then time, `sizes` of each user) of which `wanted` says which."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    click = Clicks(*products.of(clicks), log.time[clicks])
    means = interest.compute_interest_histories(click, starts)
    first = np.repeat(starts[:-1], sizes)
    place = np.flatnonzero(wanted)
    return interest_rows.table(
        users=log.users.take(pa.array(log.user[clicks[place]])),
        means=means.take(place) if len(place) < len(clicks) else means,
        history=interest_rows.History(log.products, log.product[clicks], log.time[clicks], first[place], place),
        encoder_version=version,
        now=now,
    )


def _last_of_moment(log: Log, order: Int64) -> np.ndarray:
    """Which of the clicks, by user, then time, is the last of its user at its microsecond: bool [n]."""
    user, time = log.user[order], log.time[order]
    same_as_next = (user[:-1] == user[1:]) & (time[:-1] == time[1:])
    return np.append(~same_as_next, True)[: len(order)]


def _groups(starts: Int64) -> Iterator[Int64]:
    """Users, those who click most first, in groups of about CLICKS_A_COMMIT clicks."""
    sizes = np.diff(starts)
    if not len(sizes):
        return
    users = np.argsort(-sizes, kind="stable")
    group = np.cumsum(sizes[users]) // CLICKS_A_COMMIT
    yield from np.split(users, np.flatnonzero(np.diff(group)) + 1)


def _known(settings: Settings, log: Log, order: Int64, starts: Int64, version: str) -> np.ndarray:
    """Which of the clicks, by user, then time, have their version in the table: bool [n]."""
    path = settings.table(schema.INTEREST_TABLE)
    if not delta.exists(path):
        return np.zeros(len(order), bool)
    known = delta.read(path, [USER_ID, EVENT_TIMESTAMP, "clicks"], where=pc.field("encoder_version") == version)
    user = pc.index_in(known[USER_ID], value_set=log.users).fill_null(-1).to_numpy()
    clicks, since = known["clicks"].to_numpy(), known[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    of_user = np.append(np.diff(starts), 0)  # the last is of those whom this log does not know, numbered -1
    there = (clicks >= 1) & (clicks <= of_user[user])
    place = starts[user[there]] + clicks[there] - 1
    found = np.zeros(len(order), bool)
    found[place[log.time[order[place]] + 1 == since[there]]] = True
    return found
