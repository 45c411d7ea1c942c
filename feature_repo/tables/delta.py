"""Offline tables: Delta Lake, one folder a table.

A commit is visible whole or not at all, so a killed writer leaves nothing half-written.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from feature_repo.errors import VitrineError


def exists(path: Path) -> bool:
    """Whether `path` holds a Delta table."""
    return DeltaTable.is_deltatable(str(path))


def append(path: Path, rows: pa.Table) -> int:
    """Add rows in one commit, creating the table at the first; returns the table's version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_deltalake(str(path), rows, mode="append")
    return DeltaTable(str(path)).version()


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of the newest version, or the named columns of them.

    Raises:
        VitrineError: there is no table at `path`, or it lacks one of the columns.
    """
    if not exists(path):
        raise VitrineError(f"no table `{path.name}` under {path.parent}; run the producer that writes it")
    dataset = DeltaTable(str(path)).to_pyarrow_dataset()
    missing = sorted(set(columns or ()) - set(dataset.schema.names))
    if missing:
        raise VitrineError(f"table `{path.name}` has no column {', '.join(missing)}; it has {dataset.schema.names}")
    return dataset.to_table(columns=list(columns) if columns is not None else None)
