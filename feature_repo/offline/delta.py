"""Offline tables: Delta Lake, one folder a table.

A commit is visible whole or not at all, so a killed writer leaves nothing half-written.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from feature_repo.errors import ConflictError, VitrineError

Result = TypeVar("Result")

COMMITS_SEARCHED = 200
"""For the last that added rows: compactions and deletions lie between."""
ATTEMPTS = 10
"""Commits tried before giving up: an append loses only to a deletion or a compaction, those lose to any writer."""


def exists(path: Path) -> bool:
    """Whether `path` holds a Delta table."""
    return DeltaTable.is_deltatable(str(path))


def open_table(path: Path) -> DeltaTable:
    """The newest version of a table that is there.

    Raises:
        VitrineError: Delta cannot make sense of the table's log.
    """
    try:
        return DeltaTable(str(path))
    except DeltaError as error:
        raise VitrineError(
            f"table `{path.name}` under {path.parent} cannot be opened ({_said(error)}); bring {path} back from a copy"
        ) from error


def _said(error: DeltaError) -> str:
    """What Delta says, without the stack of Rust that it may put below."""
    return str(error).splitlines()[0].removeprefix("Kernel error: ") if str(error) else type(error).__name__


def latest_version(path: Path) -> int | None:
    """The table's newest version; None where there is no table."""
    return open_table(path).version() if exists(path) else None


def append(path: Path, rows: pa.Table) -> int:
    """Add rows in one commit, creating the table at the first; returns the table's version."""

    def write() -> int:
        write_deltalake(str(path), rows, mode="append", writer_properties=_writer_properties(rows.schema))
        return open_table(path).version()

    path.parent.mkdir(parents=True, exist_ok=True)
    return commit_with_retries(path, write)


def _writer_properties(columns: pa.Schema) -> WriterProperties | None:
    """Lists without a dictionary where some of them are vectors; None, the usual way, where there are none.

    Hardly a number of a vector comes twice: a dictionary of them takes five times the time to write and to read, and a
    quarter more room. Parquet's columns within a list have no name here, so what is said of vectors is said of all
    lists; of others, compression alone finds what comes again.
    """
    if not any(pa.types.is_list(one.type) and pa.types.is_floating(one.type.value_type) for one in columns):
        return None
    plain = [column.name for column in columns if not pa.types.is_nested(column.type)]
    return WriterProperties(
        compression="SNAPPY",
        default_column_properties=ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE"),
        column_properties={
            name: ColumnProperties(dictionary_enabled=True, statistics_enabled="PAGE") for name in plain
        },
    )


def commit_with_retries(path: Path, change: Callable[[], Result]) -> Result:
    """Make a change of one commit; again if another writer was quicker, for nothing of a failed one is visible.

    Raises:
        VitrineError: others were quicker `ATTEMPTS` times, or it cannot be written: a disk that is full.
    """
    for _ in range(ATTEMPTS):
        try:
            return change()
        except CommitFailedError:
            continue
        except DeltaError as error:
            raise VitrineError(
                f"table `{path.name}` under {path.parent} cannot be written ({_said(error)}); nothing of this commit "
                "is there: mend it, make room on the disk, and run this again"
            ) from error
    raise VitrineError(f"table `{path.name}`: {ATTEMPTS} commits lost against other writers'; run this again")


class CommitConflict(ConflictError):
    """Another writer has committed to the same series. The rows must be worked out again from the new version."""


def last_append_time(path: Path) -> datetime | None:
    """Return when rows were last added, by the writer's clock, in UTC.

    None if there is no table, or if none of the last `COMMITS_SEARCHED` commits added rows.
    """
    if not exists(path):
        return None
    commits = open_table(path).history(COMMITS_SEARCHED)
    times = [commit["timestamp"] for commit in commits if commit.get("operation") in ("WRITE", "CREATE TABLE")]
    return datetime.fromtimestamp(max(times) / 1000, UTC) if times else None


def txn_version(path: Path, series: str) -> int:
    """Return the number of commits of a series that the newest version of a table holds; 0 if there is no table.

    Call it before reading the rows on which an append depends, and pass the result to `append_if_version`.
    """
    return (open_table(path).transaction_version(series) or 0) if exists(path) else 0


def append_if_version(
    path: Path, rows: pa.Table, series: str, version: int, markers: Mapping[str, int] | None = None
) -> int:
    """Add rows in one commit, unless another writer has committed to the series since `version` was read.

    Creates the table if it does not exist. Delta alone appends the rows of one transaction as often as it is asked. So
    the transaction version is compared with that of the table version on which the commit is based; if another writer
    creates a version in between, Delta itself rejects the second commit of one series.

    Args:
        path: the table's folder.
        rows: rows of the table's schema; may be empty, if only markers are to be written.
        series: Delta's application id. Writers whose rows depend on each other's use the same one.
        version: `txn_version` of the series, read before the rows of the table were read.
        markers: numbers that the commit stores on the table under other names; `txn_marker` reads them.

    Returns:
        The transaction version after the commit: `version + 1`.

    Raises:
        CommitConflict: another writer of this series was first; nothing was added.
        ConflictError: `ATTEMPTS` commits were lost to writers of other series.
        UnavailableError: the commit cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not exists(path):
        commit_with_retries(path, lambda: DeltaTable.create(str(path), schema=rows.schema, mode="ignore"))

    def write() -> int:
        table = open_table(path)
        if (table.transaction_version(series) or 0) != version:
            raise CommitConflict(f"table `{path.name}`: another writer has committed to `{series}`; read it again")
        numbers = {**(markers or {}), series: version + 1}
        transactions = CommitProperties(
            app_transactions=[Transaction(name, number) for name, number in numbers.items()]
        )
        properties = _writer_properties(rows.schema)
        write_deltalake(table, rows, mode="append", commit_properties=transactions, writer_properties=properties)
        return version + 1

    return commit_with_retries(path, write)


def txn_marker(path: Path, name: str) -> int | None:
    """Return the number that `append_if_version` last stored on a table under a name.

    None if it never stored one, or if there is no table.
    """
    return open_table(path).transaction_version(name) if exists(path) else None


def overwrite(path: Path, rows: pa.Table) -> int:
    """Put these rows in the place of all others, in one commit; returns the table's version."""

    def write() -> int:
        properties = _writer_properties(rows.schema)
        write_deltalake(str(path), rows, mode="overwrite", schema_mode="overwrite", writer_properties=properties)
        return open_table(path).version()

    path.parent.mkdir(parents=True, exist_ok=True)
    return commit_with_retries(path, write)


def open_dataset(path: Path) -> pyarrow.dataset.Dataset:
    """The newest version, to be read when and as far as needed; later commits do not show in it.

    Raises:
        VitrineError: there is no table at `path`, or its log is broken.
    """
    if not exists(path):
        raise VitrineError(f"no table `{path.name}` under {path.parent}; run the producer that writes it")
    return open_version(open_table(path), path)


def open_version(table: DeltaTable, path: Path) -> pyarrow.dataset.Dataset:
    """The version of a table that is open, its files read by Arrow itself.

    Deltalake's own file system calls Python from Arrow's threads. One that is still at it when the program ends takes
    the process down: one command in fifteen ended with exit code 134 after its work was done.

    Raises:
        VitrineError: a file of it is not there, or not as long as it was written.
    """
    for name, size in _files(table).items():
        file = path / name
        if not file.is_file() or file.stat().st_size != size:
            raise VitrineError(
                f"table `{path.name}` under {path.parent} is broken: its file {file.name} is missing, or cut short; "
                f"bring {path} back from a copy"
            )
    return table.to_pyarrow_dataset(filesystem=SubTreeFileSystem(str(path), LocalFileSystem()))


def _files(table: DeltaTable) -> dict[str, int]:
    """The files of a version, by name below its folder, and their bytes; of an old version they may be gone."""
    written = pa.table(table.get_add_actions())
    names, sizes = (written[column].to_pylist() for column in ("path", "size_bytes"))
    return {unquote(name): size for name, size in zip(names, sizes, strict=True)}


def open_added_rows(path: Path, table: DeltaTable, seen: int | None) -> pyarrow.dataset.Dataset:
    """The rows of the files that a table has and had not yet at an earlier version: every row that came since.

    After a compaction or a deletion there are others among them, which lay in other files before.

    Args:
        seen: that version; its files may be gone. None for every row, and so is one that is not kept any more.
    """
    whole = open_version(table, path)
    try:
        before = set() if seen is None else set(_files(DeltaTable(str(path), seen)))
    except DeltaError:
        before = set()
    fragments = [each for each in whole.get_fragments() if each.path not in before]
    return pyarrow.dataset.FileSystemDataset(fragments, whole.schema, whole.format, whole.filesystem)


def read(
    path: Path, columns: Sequence[str] | None = None, *, where: pyarrow.dataset.Expression | None = None
) -> pa.Table:
    """The rows of the newest version, or the named columns of them; the others are not kept in memory.

    Args:
        path: the table's folder.
        columns: all, if not said.
        where: of which rows it must hold, in any of the table's columns; all, if not said.

    Raises:
        VitrineError: there is no table at `path`, or it lacks one of the columns.
    """
    table = open_dataset(path)
    missing = sorted(set(columns or ()) - set(table.schema.names))
    if missing:
        raise VitrineError(f"table `{path.name}` has no column {', '.join(missing)}; it has {table.schema.names}")
    return table.to_table(columns=list(columns) if columns is not None else None, filter=where)
