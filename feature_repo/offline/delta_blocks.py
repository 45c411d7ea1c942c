"""Append rows that do not fit in memory, such as images, to a Delta table: block by block, in one commit.

`deltalake.write_deltalake` takes a stream of rows too, but reads it faster than it writes, so that all rows are in
memory at once. Here Arrow writes the Parquet files, and Delta Lake gets the commit that names them.
"""

import json
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.transaction import AddAction

from feature_repo.errors import ConflictError
from feature_repo.location import Location
from feature_repo.offline import delta
from feature_repo.offline.delta_files import list_files
from feature_repo.offline.storage import open_storage

FILE_BYTES = 1 << 30
"""Size in bytes at which a file is closed; the next block begins another."""
VALUES_PER_CHECK = 16
"""Values that Arrow writes before it checks the size of a page. Its default, 1,024, makes pages of 100 MB of images,
and a reader holds whole pages in memory."""


def append_blocks_if_version(
    path: Location, columns: pa.Schema, blocks: Iterable[pa.Table], series: str, version: int
) -> int:
    """Add rows in one commit, unless another writer has committed under the name `series` since `version` was read.

    Like `delta.append_if_version`, but only one block is in memory at a time, and becomes one row group of a file. If
    a block or a file fails, or another writer was first, the files that were written are removed. They stay until a
    full vacuum if the process is killed, or interrupted while it commits: the commit may have been made.

    Args:
        path: the table's location. The table is created if it does not exist.
        columns: the schema of the rows. Columns that the table lacks are added to it.
        blocks: tables with this schema; read once. Those without rows are skipped.
        series: the name, which Delta calls an application id.
        version: what `delta.txn_version` returned for this name before the rows of the table were read.

    Returns:
        The transaction version after the commit: `version + 1`.

    Raises:
        CommitConflictError: another writer under this name was first; nothing was added.
        ConflictError: `delta.ATTEMPTS` commits were lost to other writers, such as deletions; nothing was added.
        UnavailableError: the commit cannot be written.
        OSError: a file cannot be written.
    """
    delta.create_table(path, columns)
    actions = _write_files(path, columns, blocks)

    def commit() -> int:
        table = _add_missing_columns(path, columns)
        delta.require_txn_version(table, path, series, version)
        transactions = CommitProperties(app_transactions=[Transaction(series, version + 1)])
        table.create_write_transaction(actions, "append", table.schema(), commit_properties=transactions)
        return version + 1

    try:
        return delta.commit_with_retries(path, commit)
    except ConflictError:
        committed = list_files(delta.open_table(path))  # a commit whose reply was lost looks like another writer's
        _delete_files(path, [action.path for action in actions if action.path not in committed])
        raise


def _add_missing_columns(path: Location, columns: pa.Schema) -> DeltaTable:
    """Open a table, after a commit that adds the columns which it lacks; its rows have null there."""
    table = delta.open_table(path)
    names = {field.name for field in table.schema().fields}
    missing = [field for field in Schema.from_arrow(columns).fields if field.name not in names]
    if missing:
        table.alter.add_columns(missing)
    return delta.open_table(path) if missing else table


def _write_files(path: Location, columns: pa.Schema, blocks: Iterable[pa.Table]) -> list[AddAction]:
    """Write Parquet files, and return what a commit says of them. If an error is raised, remove them."""
    actions: list[AddAction] = []
    names: list[str] = []
    filesystem = open_storage(path).filesystem
    remaining = (block for block in blocks if len(block))
    try:
        block = next(remaining, None)
        while block is not None:
            names.append(f"part-{len(names):05}-{uuid.uuid4()}-c000.snappy.parquet")
            statistics = _Statistics(columns)
            with filesystem.open_output_stream(names[-1]) as file:
                with pq.ParquetWriter(file, columns, write_batch_size=VALUES_PER_CHECK) as writer:
                    while block is not None and file.tell() < FILE_BYTES:
                        writer.write_table(block, row_group_size=len(block))
                        statistics.add(block)
                        block = next(remaining, None)
                size = file.tell()
            written_ms = int(datetime.now(UTC).timestamp() * 1e3)
            actions.append(AddAction(names[-1], size, {}, written_ms, True, statistics.to_json()))
    except BaseException:
        _delete_files(path, names)
        raise
    return actions


def _delete_files(path: Location, names: Iterable[str]) -> None:
    filesystem = open_storage(path).filesystem
    for name in names:
        with suppress(FileNotFoundError):
            filesystem.delete_file(name)


class _Statistics:
    """Statistics of one file as Delta's log has them: the number of rows, and the bounds of the timestamps."""

    def __init__(self, columns: pa.Schema) -> None:
        self._rows = 0
        self._bounds: dict[str, list[Any]] = {field.name: [] for field in columns if pa.types.is_timestamp(field.type)}

    def add(self, block: pa.Table) -> None:
        """Count the rows of a block."""
        self._rows += len(block)
        for name, bounds in self._bounds.items():
            bounds += [value for value in pc.min_max(block[name]).as_py().values() if value is not None]

    def to_json(self) -> str:
        """Return the statistics; Delta Lake rounds times down to milliseconds, and so does this."""
        bounds = {name: values for name, values in self._bounds.items() if values}
        text = {
            name: [time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" for time in (min(of), max(of))]
            for name, of in bounds.items()
        }
        return json.dumps(
            {
                "numRecords": self._rows,
                "minValues": {name: low for name, (low, _) in text.items()},
                "maxValues": {name: high for name, (_, high) in text.items()},
                "nullCount": {},
            }
        )
