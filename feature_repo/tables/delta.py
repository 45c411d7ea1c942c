"""Offline tables: Delta Lake, one folder a table.

A commit is visible whole or not at all, so a killed writer leaves nothing half-written.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.dataset
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from feature_repo.errors import VitrineError

Result = TypeVar("Result")

ATTEMPTS = 10
"""Commits tried before giving up: an append loses only to a deletion or a compaction, those lose to any writer."""


def exists(path: Path) -> bool:
    """Whether `path` holds a Delta table."""
    return DeltaTable.is_deltatable(str(path))


def append(path: Path, rows: pa.Table) -> int:
    """Add rows in one commit, creating the table at the first; returns the table's version."""

    def write() -> int:
        write_deltalake(str(path), rows, mode="append")
        return DeltaTable(str(path)).version()

    path.parent.mkdir(parents=True, exist_ok=True)
    return commit(path, write)


def commit(path: Path, change: Callable[[], Result]) -> Result:
    """Make a change of one commit; again if another writer was quicker, for nothing of a failed one is visible.

    Raises:
        VitrineError: others were quicker `ATTEMPTS` times.
    """
    for _ in range(ATTEMPTS):
        try:
            return change()
        except CommitFailedError:
            continue
    raise VitrineError(f"table `{path.name}`: {ATTEMPTS} commits lost against other writers'; run this again")


def overwrite(path: Path, rows: pa.Table) -> int:
    """Put these rows in the place of all others, in one commit; returns the table's version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_deltalake(str(path), rows, mode="overwrite", schema_mode="overwrite")
    return DeltaTable(str(path)).version()


def dataset(path: Path) -> pyarrow.dataset.Dataset:
    """The newest version, to be read when and as far as needed; later commits do not show in it.

    Raises:
        VitrineError: there is no table at `path`.
    """
    if not exists(path):
        raise VitrineError(f"no table `{path.name}` under {path.parent}; run the producer that writes it")
    return files_of(DeltaTable(str(path)), path)


def files_of(table: DeltaTable, path: Path) -> pyarrow.dataset.Dataset:
    """The version of a table that is open, its files read by Arrow itself.

    Deltalake's own file system calls Python from Arrow's threads. One that is still at it when the program ends takes
    the process down: one command in fifteen ended with exit code 134 after its work was done.
    """
    return table.to_pyarrow_dataset(filesystem=SubTreeFileSystem(str(path), LocalFileSystem()))


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
    table = dataset(path)
    missing = sorted(set(columns or ()) - set(table.schema.names))
    if missing:
        raise VitrineError(f"table `{path.name}` has no column {', '.join(missing)}; it has {table.schema.names}")
    return table.to_table(columns=list(columns) if columns is not None else None, filter=where)
