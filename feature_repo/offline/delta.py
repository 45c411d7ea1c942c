"""Delta Lake tables: one folder a table, on disk or in a bucket.

A commit is visible completely or not at all, so a killed writer leaves no partial rows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.dataset
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError

from feature_repo.errors import ConflictError, CorruptDataError, NotFoundError, UnavailableError
from feature_repo.location import Location
from feature_repo.offline.delta_columns import choose_writer_properties, find_schema_mode
from feature_repo.offline.delta_files import list_files, open_version
from feature_repo.offline.storage import first_line, make_parent, open_storage, translate_errors

Result = TypeVar("Result")

COMMITS_SEARCHED = 200
"""Commits that `last_append_time` reads: compactions and deletions lie between the appends."""
LOG_FILES = ("_delta_log/_last_checkpoint", "_delta_log/00000000000000000000.json")
"""Files of a table's log. Nearly every table has at least one of them."""
ATTEMPTS = 10
"""Attempts at a commit. An append conflicts only with deletions and compactions, those with every writer."""

OPENINGS = 3
"""Attempts at opening a table: entries of its log that were listed may be removed before they are read."""


def exists(path: Location) -> bool:
    """Return whether a location holds a Delta table; False if there is no such folder.

    Raises:
        UnavailableError: the bucket does not answer.
    """
    storage = open_storage(path)
    with translate_errors(storage.uri):
        known = storage.filesystem.get_file_info(list(LOG_FILES))  # delta-rs lists the whole log, which may be long
        return any(info.is_file for info in known) or DeltaTable.is_deltatable(storage.uri, storage.options)


def open_table(path: Location) -> DeltaTable:
    """Open the newest version of an existing table. What is opened stays at this version.

    Raises:
        CorruptDataError: there is no table at `path`, or its log cannot be read.
    """
    for attempt in range(1, OPENINGS + 1):
        try:
            return _open_version(path, None)
        except DeltaError as error:
            if attempt == OPENINGS:
                raise CorruptDataError(
                    f"table `{path.name}` under {path.parent} cannot be opened ({first_line(error)}); restore {path} "
                    "from a backup"
                ) from error
        except OSError as error:
            raise UnavailableError(f"{path} does not answer ({first_line(error)}); run this again") from error
    raise AssertionError("unreachable")


def create_table(path: Location, columns: pa.Schema) -> None:
    """Create a table without rows, unless it exists.

    Args:
        path: the table's location.
        columns: its schema.

    Raises:
        UnavailableError: the commit cannot be written.
    """
    make_parent(path)
    storage = open_storage(path)

    def create() -> DeltaTable:
        return DeltaTable.create(storage.uri, schema=columns, mode="ignore", storage_options=storage.options)

    if not exists(path):
        commit_with_retries(path, create)


def latest_version(path: Location) -> int | None:
    """Return the number of a table's newest version, counted from 0; None if there is no table.

    Raises:
        CorruptDataError: the log of the table cannot be read.
    """
    return open_table(path).version() if exists(path) else None


def append(path: Location, rows: pa.Table) -> int:
    """Add rows in one commit and return the table's newest version after it. Creates the table if it does not exist.

    Nothing is checked for duplicates: rows that the table holds already are added again.

    Args:
        path: the table's location.
        rows: rows of the table's schema; without any, the commit is made all the same.

    Raises:
        ConflictError: `ATTEMPTS` commits were lost to other writers.
        UnavailableError: the commit cannot be written, or the rows have other columns than the table.
    """
    return _write(path, rows, "append")


def commit_with_retries(path: Location, change: Callable[[], Result]) -> Result:
    """Call `change`, which makes one commit, and call it again if another writer was first. Return its result.

    There is no pause between the attempts.

    Args:
        path: the table's folder, for messages.
        change: makes the commit on the newest version. A failed commit leaves nothing behind, so it can be repeated.
            An exception that is not Delta's is raised at once.

    Raises:
        ConflictError: other writers were first `ATTEMPTS` times.
        UnavailableError: the commit cannot be written, for example because the disk is full.
    """
    lost = ""
    for _ in range(ATTEMPTS):
        try:
            return change()
        except CommitFailedError as error:
            lost = first_line(error)
            if "append-only" in lost:
                raise UnavailableError(
                    f"table `{path.name}` under {path.parent} is append-only, so its rows cannot be deleted or "
                    f"replaced; to allow it, run in the engine that set this: ALTER TABLE ... UNSET TBLPROPERTIES "
                    "('delta.appendOnly')"
                ) from error
        except (DeltaError, OSError) as error:
            raise UnavailableError(
                f"table `{path.name}` under {path.parent} cannot be written ({first_line(error)}); this commit was "
                "not applied: free disk space or repair the cause, and run this again"
            ) from error
    raise ConflictError(f"table `{path.name}`: {ATTEMPTS} commits were lost to other writers ({lost}); run this again")


class CommitConflictError(ConflictError):
    """Another writer committed first to the same series of commits (see `append_if_version`); nothing was added.

    The caller must read the table again and compute the rows anew.
    """


def last_append_time(path: Location) -> datetime | None:
    """Return when rows were last added, by the writer's clock, in UTC.

    The creation of a table counts, even without rows, and so does an overwrite. None if there is no table, or if none
    of the last `COMMITS_SEARCHED` commits that the log still has added rows.

    Raises:
        CorruptDataError: the log of the table cannot be read.
    """
    if not exists(path):
        return None
    commits = open_table(path).history(COMMITS_SEARCHED)
    times = [commit["timestamp"] for commit in commits if commit.get("operation") in ("WRITE", "CREATE TABLE")]
    return datetime.fromtimestamp(max(times) / 1000, UTC) if times else None


def txn_version(path: Location, series: str) -> int:
    """Return how many commits `append_if_version` has made to a table under one name; 0 if none, or without a table.

    Call it before reading the rows on which an append depends, and pass the result to `append_if_version`.

    Args:
        path: the table's location.
        series: the name, which Delta calls an application id. Writers whose rows depend on each other's use the same
            one.

    Raises:
        CorruptDataError: the log of the table cannot be read.
    """
    return (open_table(path).transaction_version(series) or 0) if exists(path) else 0


def require_txn_version(table: DeltaTable, path: Location, series: str, version: int) -> None:
    """Raise CommitConflictError unless the commits to a table under the name `series` are `version` in number.

    Args:
        table: the version of the table on which a commit is to be based.
        path: the table's folder, for the message.
        series: the name, which Delta calls an application id.
        version: what `txn_version` returned for this name.
    """
    if (table.transaction_version(series) or 0) != version:
        raise CommitConflictError(f"table `{path.name}`: another writer has committed to `{series}`; read it again")


def append_if_version(
    path: Location,
    rows: pa.Table,
    series: str,
    version: int,
    markers: Mapping[str, int] | None = None,
    *,
    opened: DeltaTable | None = None,
    maintain_log: bool = True,
) -> int:
    """Add rows in one commit, unless another writer has committed under the name `series` since `version` was read.

    Creates the table if it does not exist. Delta alone appends the rows of one transaction as often as it is asked. So
    the transaction version is compared with that of the table version on which the commit is based; if another writer
    creates a version in between, Delta itself rejects the second commit under one name.

    Args:
        path: the table's location.
        rows: rows of the table's schema; may be empty, if only markers are to be written.
        series: the name, which Delta calls an application id. Writers whose rows depend on each other's use the same
            one.
        version: what `txn_version` returned for this name before the rows of the table were read.
        markers: numbers that the commit stores on the table under other names, for `txn_marker` to read. A number
            stored earlier under the same name is replaced. None stores none.
        opened: the newest version as far as the caller knows, on which the commit is tried first. None opens it.
        maintain_log: whether every hundredth commit also writes a checkpoint and removes expired log entries. To find
            that out, each commit lists the log. False for a caller that calls `delta_log.shorten_log` instead.

    Returns:
        The transaction version after the commit: `version + 1`.

    Raises:
        CommitConflictError: another writer under this name was first; nothing was added.
        ConflictError: `ATTEMPTS` commits were lost to other writers, such as deletions; nothing was added.
        UnavailableError: the commit cannot be written.
    """
    if opened is None:
        create_table(path, rows.schema)
    known = [opened] if opened is not None else []

    def write() -> int:
        table = known.pop() if known else open_table(path)
        require_txn_version(table, path, series, version)
        numbers = {**(markers or {}), series: version + 1}
        transactions = CommitProperties(
            app_transactions=[Transaction(name, number) for name, number in numbers.items()]
        )
        properties = choose_writer_properties(rows.schema)
        write_deltalake(
            table,
            rows,
            mode="append",
            schema_mode=find_schema_mode(path, table, rows.schema),
            commit_properties=transactions,
            post_commithook_properties=PostCommitHookProperties(maintain_log, maintain_log),
            writer_properties=properties,
        )
        return version + 1

    return commit_with_retries(path, write)


def txn_marker(path: Location, name: str) -> int | None:
    """Return the number that `append_if_version` last stored on a table under a name.

    None if it never stored one, or if there is no table.

    Raises:
        CorruptDataError: the log of the table cannot be read.
    """
    return open_table(path).transaction_version(name) if exists(path) else None


def overwrite(path: Location, rows: pa.Table) -> int:
    """Replace all rows, and the schema, in one commit; return the table's newest version after it.

    Creates the table if it does not exist. Readers of older versions still see the old rows until a vacuum.

    Args:
        path: the table's location.
        rows: the new rows, which need not have the old schema; without any, the table is empty afterwards.

    Raises:
        ConflictError: `ATTEMPTS` commits were lost to other writers.
        UnavailableError: the commit cannot be written.
    """
    return _write(path, rows, "overwrite")


def open_dataset(path: Location, columns: Iterable[str] = ()) -> pyarrow.dataset.Dataset:
    """Open the newest version as an Arrow dataset, which reads files only when rows are asked for.

    The dataset stays at this version; later commits are not visible in it.

    Args:
        path: the table's location.
        columns: columns that the table must have.

    Raises:
        NotFoundError: there is no table at `path`, or it lacks one of the columns.
        CorruptDataError: the log cannot be read, or a file is missing or truncated.
    """
    if not exists(path):
        raise NotFoundError(f"no table `{path.name}` under {path.parent}; run the producer that writes it")
    dataset = open_version(open_table(path), path)
    if missing := sorted(set(columns) - set(dataset.schema.names)):
        raise NotFoundError(
            f"table `{path.name}` under {path.parent} has no column {', '.join(missing)}; it has "
            f"{dataset.schema.names}: correct the path, or restore the table"
        )
    return dataset


def open_added_rows(path: Location, table: DeltaTable, since: int | None) -> pyarrow.dataset.Dataset:
    """Open the files of a version that an earlier version did not have: they hold every row added in between.

    After a compaction or a deletion, the files also hold older rows that have moved.

    Args:
        path: the table's location.
        table: the version to read.
        since: the earlier version. None, or a version that the log no longer holds, selects all files.

    Returns:
        A dataset of these files, with the schema of `table`; it has no rows if no file was added.

    Raises:
        CorruptDataError: a file of `table` is missing or truncated.
    """
    dataset = open_version(table, path)
    try:
        known_files = set() if since is None else set(list_files(_open_version(path, since)))
    except DeltaError:
        known_files = set()
    fragments = [fragment for fragment in dataset.get_fragments() if fragment.path not in known_files]
    return pyarrow.dataset.FileSystemDataset(fragments, dataset.schema, dataset.format, dataset.filesystem)


def read(
    path: Location, columns: Sequence[str] | None = None, *, where: pyarrow.dataset.Expression | None = None
) -> pa.Table:
    """Read rows of the newest version into memory, in no particular order.

    Args:
        path: the table's location.
        columns: the columns to read, in the order of the result; None reads all.
        where: filter on any columns of the table; None selects all rows.

    Raises:
        NotFoundError: there is no table at `path`, or it lacks one of the columns.
        CorruptDataError: the table is damaged.
    """
    selected = None if columns is None else list(columns)
    return open_dataset(path, selected or ()).to_table(columns=selected, filter=where)


def _write(path: Location, rows: pa.Table, mode: Literal["append", "overwrite"]) -> int:
    """Write rows in one commit, and return the table's newest version after it."""

    def write() -> int:
        schema_mode: Literal["merge", "overwrite"] | None = "overwrite" if mode == "overwrite" else None
        if mode == "append" and exists(path):
            schema_mode = find_schema_mode(path, open_table(path), rows.schema)
        storage = open_storage(path)
        write_deltalake(
            storage.uri,
            rows,
            mode=mode,
            schema_mode=schema_mode,
            storage_options=storage.options,
            writer_properties=choose_writer_properties(rows.schema),
        )
        return open_table(path).version()

    make_parent(path)
    return commit_with_retries(path, write)


def _open_version(path: Location, version: int | None) -> DeltaTable:
    storage = open_storage(path)
    return DeltaTable(storage.uri, version, storage_options=storage.options)
