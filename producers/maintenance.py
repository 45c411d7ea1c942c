"""Maintenance of the offline tables: forget products and users, drop corrected rows, compact and remove files.

In a table with a product or user id, an event timestamp and a created timestamp, a row is corrected by a later created
row with the same ids and event timestamp. In the tables of KEYS_WITHOUT_EVENTS it is corrected by a later created row
with the same key. In other tables no row corrects another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.arrow.text import normalize_id
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.index import saved_searches
from feature_repo.index.rows import FOLDER as INDEX
from feature_repo.index.rows import GROUP_FOLDER as GROUP_INDEX
from feature_repo.location import Location
from feature_repo.offline import delta, retention
from feature_repo.offline.delta_log import LOG_RETENTION
from feature_repo.offline.storage import open_storage
from feature_repo.online.open_store import open_configured_table
from feature_repo.schema import (
    CREATED_TIMESTAMP,
    ENCODER_VERSION,
    EVENT_TIMESTAMP,
    PRODUCT_ID,
    PRODUCT_ID_L,
    PRODUCT_ID_R,
    USER_ID,
)
from producers.catalogue.forget_packed import forget_packed
from producers.embeddings.forget_contents import delete_contents, find_contents
from producers.embeddings.shared_cache import count_forget_run
from producers.studio.picture_store import FOLDER as STUDIO
from producers.studio.picture_store import forget_pictures

DEFAULT_RETENTION_DAYS = 365.0
"""Days for which corrected rows are kept if feature_store.yaml has no `offline_store.retention_days`."""
ROW_ID = "row_id"
"""The column of the quarantine that may hold a product or user id."""


KEYS_WITHOUT_EVENTS = {
    schema.PAIR_TABLE: (PRODUCT_ID_L, PRODUCT_ID_R, "verifier_version"),
    schema.PAIR_LABEL_TABLE: ("pair_id",),
}
"""Tables without an event timestamp, and their keys. Of the rows of one key the one created last counts."""


@dataclass(frozen=True)
class VacuumSummary:
    """What was removed from one table, or would be in a dry run."""

    table: str
    """Name of the Delta table."""
    rows_dropped: int
    """Corrected rows; 0 for a table whose rows cannot be corrected."""
    files_removed: int
    """Data files that the newest version of the table does not use."""


@dataclass(frozen=True)
class ForgetSummary:
    """What was deleted of products and users, or would be in a dry run."""

    offline: dict[str, int]
    """Number of deleted rows by name of the Delta table, in the order of names, then of the indexes as `index`, of what
    saved searches found as `searches`, and of jobs that generated pictures for the products, with their pictures, as
    `studio/pictures`; what has none is left out."""
    online: dict[str, int]
    """Number of deleted rows by name of the feature view; views without any are left out. Empty without an online
    store."""
    pictures: int = 0
    """Number of deleted pictures that `produce images` keeps and that only the products had; in a dry run those that
    would be deleted."""
    contents: int = 0
    """Number of deleted vectors and tower outputs of images and titles that only the products had, in the caches of all
    encoders; 0 in a dry run."""
    users_with_clicks: int = 0
    """Users, besides the forgotten ones, whose rows of `user_interest` still list one of the products among their last
    clicks. These rows are not changed."""


def read_retention(settings: Settings) -> timedelta:
    """Return how long corrected rows are kept: `offline_store.retention_days`, or DEFAULT_RETENTION_DAYS without it.

    Fractions of a day are accepted. 0 means that corrected rows are not kept.

    Raises:
        InvalidInputError: `offline_store.retention_days` is not a number of at least 0, or is more than a timedelta can
            hold (999,999,999 days). Texts, true and false are not numbers.
    """
    days = settings.raw["offline_store"].get("retention_days", DEFAULT_RETENTION_DAYS)
    if isinstance(days, bool) or not isinstance(days, int | float) or not 0 <= days <= timedelta.max.days:
        raise InvalidInputError(
            f"{settings.file}: offline_store.retention_days is {days!r}; expected a number of days of at least 0"
        )
    return timedelta(days=days)


def vacuum(settings: Settings, *, now: datetime, grace: timedelta, dry_run: bool = False) -> Iterator[VacuumSummary]:
    """Clean each table and yield what was removed: drop corrected rows, join small files, remove unreferenced files.

    Nothing happens before the first summary is asked for. Each table is cleaned just before its summary is yielded.

    Args:
        settings: the deployment.
        now: rows that were corrected before `now` minus the retention are dropped. With a time zone.
        grace: files that became unreferenced less than this long ago are kept, for readers that opened the table
            before. Rounded up to whole hours. With 0 the tables' logs are shortened to their newest entries. Otherwise
            they keep LOG_RETENTION, because a step reads only what was added since the version that its last run saw.
        dry_run: only count. Files that the run itself would replace are not counted; a grace of 0 removes them too.

    Yields:
        One summary for each table, in the order of their names, also if nothing was removed.

    Raises:
        InvalidInputError: the retention is invalid.
        NotFoundError: the folder of the offline tables does not exist. If it has no tables, nothing is yielded.
        ConflictError: other writers committed to a table first too often. Tables before it stay cleaned.
        UnavailableError: a commit cannot be written.
        CorruptDataError: a table is damaged.
    """
    before = now - read_retention(settings)
    keep_log = max(grace, LOG_RETENTION) if grace else grace
    drop = retention.count_corrected if dry_run else retention.drop_corrected
    for path in _list_tables(settings):
        columns = delta.open_dataset(path).schema.names
        keys = [key for key in (PRODUCT_ID, USER_ID) if key in columns]
        if path.name in schema.ENCODER_TABLES:
            keys.append(ENCODER_VERSION)  # a row of another version corrects nothing
        dropped = 0
        if path.name in KEYS_WITHOUT_EVENTS:
            keys = list(KEYS_WITHOUT_EVENTS[path.name])
            dropped = drop(path, keys=keys, event=None, created=CREATED_TIMESTAMP, before=before)
        elif keys and {EVENT_TIMESTAMP, CREATED_TIMESTAMP} <= set(columns):
            dropped = drop(path, keys=keys, event=EVENT_TIMESTAMP, created=CREATED_TIMESTAMP, before=before)
        if not dry_run:
            retention.compact(path)
        removed = retention.vacuum(path, grace=grace, dry_run=dry_run, keep_log=keep_log)
        yield VacuumSummary(path.name, dropped, removed)


def forget(
    settings: Settings, *, products: Sequence[str], users: Sequence[str], dry_run: bool = False
) -> ForgetSummary:
    """Delete every row of some products and users, offline and online, of every encoder version.

    Ids without rows are ignored. Pictures that only these products had are deleted from the LMDBs and the bucket of
    `produce images`; vectors and tower outputs of images and titles that only they had are deleted from the caches.

    Without any ids nothing is deleted, and all counts are empty or 0.

    In the quarantine, where an id may be of a product or a user, rows of all the ids are deleted. Readers that open a
    table afterwards do not see the rows; `vacuum` removes their bytes from the disk. After an error run it again: what
    was deleted stays deleted. A materialization that started before may write online rows again, so run it again when
    that has ended.

    Args:
        settings: the deployment.
        products: product ids; may be empty. An id stands for its spelling as it is given, which a table of an earlier
            version may have, and for its normalized form.
        users: user ids, likewise; may be empty.
        dry_run: only count, and delete nothing.

    Raises:
        NotFoundError: the folder of the offline tables does not exist.
        InvalidInputError: the online store is not one of this project's, or one of its options is invalid. Nothing is
            deleted then.
        UnavailableError: the online store does not answer, or packed pictures cannot be deleted.
        ConflictError: other writers committed first too often; or an online view has rows whose ids are unknown,
            because their keys hold only a hash.
    """
    online = open_configured_table(settings)
    products, users = ([*dict.fromkeys([*ids, *map(normalize_id, ids)])] for ids in (products, users))
    values = {name: list(products) for name in (PRODUCT_ID, PRODUCT_ID_L, PRODUCT_ID_R)}
    values |= {USER_ID: list(users), ROW_ID: [*products, *users]}
    # Pictures and caches go first: their keys are found by the rows.
    pictures = forget_packed(settings, products, dry_run=dry_run)
    contents = 0 if dry_run else delete_contents(settings, find_contents(settings, products))
    offline_rows: dict[str, int] = {}
    for path in _list_tables(settings):
        if dry_run:
            rows = retention.count_rows(path, values)
        else:
            columns = delta.open_dataset(path).schema.names
            rows = sum(retention.forget(path, column, ids) for column, ids in values.items() if column in columns)
        if rows:
            offline_rows[path.name] = rows
    if products and not dry_run:
        count_forget_run(settings)  # after the rows are gone: another machine fills its cache from them
    if rows := _forget_indexed(settings, products, dry_run=dry_run):
        offline_rows[INDEX] = rows
    if rows := saved_searches.forget_found(settings.local, products, dry_run=dry_run):
        offline_rows[saved_searches.FOLDER] = rows
    if rows := forget_pictures(settings.local, products, dry_run=dry_run):
        offline_rows[str(STUDIO)] = rows
    online_rows: dict[str, int] = {}
    if online is not None and dry_run:
        online_rows = online.count_entities({PRODUCT_ID: products, USER_ID: users})
    elif online is not None:
        for join_key, ids in ((PRODUCT_ID, products), (USER_ID, users)):
            for view, rows in online.delete_entities(join_key, ids).items():
                online_rows[view] = online_rows.get(view, 0) + rows
    users_with_clicks = _count_users_with_clicks(settings, products, users)
    return ForgetSummary(offline_rows, online_rows, pictures, contents, users_with_clicks)


def _forget_indexed(settings: Settings, products: Sequence[str], *, dry_run: bool) -> int:
    """Remove products from the indexes of `produce index`; return the number of rows."""
    if not products or not any((settings.local / name).is_dir() for name in (INDEX, GROUP_INDEX)):
        return 0
    from feature_repo.index.update import forget_products  # needs faiss, which a store without an index does not

    return forget_products(settings.local, products, dry_run=dry_run)


def _count_users_with_clicks(settings: Settings, products: Sequence[str], forgotten_users: Sequence[str]) -> int:
    """Return how many users, besides the forgotten ones, have a row that lists one of the products."""
    path = settings.table(schema.INTEREST_TABLE)
    if not products or not delta.exists(path):
        return 0
    users: set[str] = set()
    for batch in take.scan(delta.open_dataset(path), [USER_ID, "recent_products"]).to_batches():
        lists = batch["recent_products"]
        is_listed = pc.is_in(pc.list_flatten(lists), value_set=pa.array(products, pa.string()))
        rows = pc.unique(pc.list_parent_indices(lists).filter(is_listed))
        users.update(batch[USER_ID].take(rows).to_pylist())
    return len(users - set(forgotten_users))


def _list_tables(settings: Settings) -> list[Location]:
    """Return the locations of the Delta tables, sorted by name; none if there are none.

    Raises:
        NotFoundError: the folder of the offline tables does not exist.
    """
    names = open_storage(settings.offline).list_folders()
    if names is None:
        raise NotFoundError(
            f"no offline tables at {settings.offline}, the `offline_store.path` of {settings.file}; "
            "correct the path or write a table first"
        )
    return [path for path in map(settings.table, names) if delta.exists(path)]
