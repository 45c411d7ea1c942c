"""Upkeep of the offline tables: forget products and users, drop what was corrected long ago, join and remove files.

A table with a product or a user, an event and a created timestamp is a history of that product or user; any other is
a log, of which no row is ever a correction of another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, retention
from feature_repo.online.open_store import open_configured_table
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID, USER_ID

RETENTION_DAYS = 365.0
"""Where feature_store.yaml names no `offline_store.retention_days`."""
ROW_ID = "row_id"
"""The quarantine's column that may hold a product's or a user's id."""


@dataclass(frozen=True)
class Vacuumed:
    """What was done to one table."""

    table: str
    rows_dropped: int
    files_removed: int


@dataclass(frozen=True)
class Forgotten:
    """What was deleted of products and users."""

    offline: dict[str, int]
    """Rows per table that had any."""
    online: dict[str, int]
    """Rows per view that had any."""
    remembered_by: int = 0
    """Users whose rows of `user_interest` still list one of the products among their last clicks."""


def retention_of(settings: Settings) -> timedelta:
    """How long corrected rows are kept.

    Raises:
        VitrineError: `offline_store.retention_days` is no number of days, zero or more.
    """
    days = settings.raw["offline_store"].get("retention_days", RETENTION_DAYS)
    if isinstance(days, bool) or not isinstance(days, int | float) or not 0 <= days <= timedelta.max.days:
        raise VitrineError(f"{settings.file}: offline_store.retention_days is {days!r}; wanted a number of days")
    return timedelta(days=days)


def vacuum(settings: Settings, *, now: datetime, grace: timedelta) -> Iterator[Vacuumed]:
    """Per table: drop rows corrected before `now` minus the retention, join small files, remove those let go.

    Args:
        grace: files let go less than this long ago stay, for readers that opened the table before.
    """
    before = now - retention_of(settings)
    for path in _tables(settings):
        columns = delta.open_dataset(path).schema.names
        keys = [key for key in (PRODUCT_ID, USER_ID) if key in columns]
        dropped = 0
        if keys and {EVENT_TIMESTAMP, CREATED_TIMESTAMP} <= set(columns):
            dropped = retention.drop_corrected(
                path, keys=keys, event=EVENT_TIMESTAMP, created=CREATED_TIMESTAMP, before=before
            )
        retention.compact(path)
        yield Vacuumed(path.name, dropped, retention.vacuum(path, grace=grace))


def forget(settings: Settings, *, products: Sequence[str], users: Sequence[str]) -> Forgotten:
    """Delete every row of these products and users, offline and online.

    Who opens a table from now on sees none of them; `vacuum` takes their bytes off the disk. A materialization that
    began before may bring online rows back: forget once more when it has ended. So do after an error: what has been
    deleted stays so.

    Raises:
        VitrineError: the online store is not one of ours, or does not answer.
    """
    online = open_configured_table(settings)
    deleted: dict[str, int] = {}
    for path in _tables(settings):
        columns = delta.open_dataset(path).schema.names
        for column, values in ((PRODUCT_ID, products), (USER_ID, users), (ROW_ID, [*products, *users])):
            if column in columns:
                rows = retention.forget(path, column, list(values))
                if rows:
                    deleted[path.name] = deleted.get(path.name, 0) + rows
    removed: dict[str, int] = {}
    if online is not None:
        for join_key, values in ((PRODUCT_ID, products), (USER_ID, users)):
            for view, rows in online.forget_entities(join_key, values).items():
                removed[view] = removed.get(view, 0) + rows
    return Forgotten(deleted, removed, _remembered_by(settings, products))


def _remembered_by(settings: Settings, products: Sequence[str]) -> int:
    """How many users have one of the products among the last clicks of any of their rows."""
    path = settings.table(schema.INTEREST_TABLE)
    if not products or not delta.exists(path):
        return 0
    users: set[str] = set()
    for batch in take.scan(delta.open_dataset(path), [USER_ID, "recent_products"]).to_batches():
        lists = batch["recent_products"]
        named = pc.is_in(pc.list_flatten(lists), value_set=pa.array(products, pa.string()))
        rows = pc.unique(pc.list_parent_indices(lists).filter(named))
        users.update(batch[USER_ID].take(rows).to_pylist())
    return len(users)


def _tables(settings: Settings) -> list[Path]:
    if not settings.offline.is_dir():
        raise VitrineError(f"no offline tables at {settings.offline}; `offline_store.path` in {settings.file} says so")
    return sorted(path for path in settings.offline.iterdir() if path.is_dir() and delta.exists(path))
