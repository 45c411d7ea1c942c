"""The as-of join on a Ray cluster: all rows and versions of a key meet in one task.

As on one machine, only keys, timestamps and row numbers move. Each task looks its rows up with the functions of
`training_set` and returns row numbers and table positions. A vector is read once, by the process that needs it.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import ray.data

from feature_repo.distributed import cluster, shuffle
from feature_repo.distributed.shuffle import RowRange
from feature_repo.offline import key_encoding, training_set, training_set_on_disk
from feature_repo.offline.training_set import ViewTable

ROWS_PER_TASK = 1_000_000
"""Rows in memory that are sent to one task, which splits them into partitions."""
_ROW_NUMBER = "vitrine row number"
_MATCHES = pa.schema([("row", pa.int64()), ("version", pa.int64())])


def look_up_rows(
    rows: pa.Table | pyarrow.dataset.Dataset,
    event_timestamp: str,
    view: ViewTable,
    created_by_then: bool,
    created_before: datetime | None,
) -> training_set.Matches:
    """Look rows up in a view on the connected cluster (`training_set.Lookup`).

    A view without keys, or without rows, is looked up in this process.

    Args:
        rows: rows with the view's join keys and the timestamp. Null keys and timestamps match nothing.
        event_timestamp: name of the timestamp column in `rows`.
        view: the feature view; every machine finds its files under the same path.
        created_by_then: use only versions that had been created by the row's own time, inclusive.
        created_before: use only versions created before this time, exclusive; None: no limit.

    Yields:
        int64 [m] positions of some rows in `rows`, and int64 [m] the position of each one's version in the view's
        table, both counted from 0. Blocks come in no fixed order. A row without a version is in no block, or has -1.

    Raises:
        InvalidInputError: a key or the timestamp cannot be compared with the view's.
    """
    version_count = view.table.count_rows()
    if not view.keys or not version_count:
        yield from training_set_on_disk.look_up_by_ranges(rows, event_timestamp, view, created_by_then, created_before)
        return
    row_count = len(rows) if isinstance(rows, pa.Table) else rows.count_rows()
    partitions = shuffle.count_partitions(version_count + row_count)
    # The tasks need the column names of the view, but not the list of its files.
    table = view.table
    fileless = replace(
        view, table=pyarrow.dataset.FileSystemDataset([], table.schema, table.format, filesystem=table.filesystem)
    )
    columns = list(dict.fromkeys([*view.keys, event_timestamp]))
    sent_rows = _send_rows(rows, columns, partial(_partition_rows, fileless, partitions))
    read = partial(
        _read_range, training_set.key_and_time_columns(view), partial(_partition_versions, fileless, partitions)
    )
    sent_versions = shuffle.map_items(shuffle.split_table(table), read, shuffle.PARTITION_SCHEMA)
    match = partial(_match_partition, fileless, event_timestamp, created_by_then, created_before)
    matched = shuffle.map_partitions([sent_rows, sent_versions], "part", partitions, match)
    for block in cluster.iterate_results(matched):
        yield block["row"].to_numpy(), block["version"].to_numpy()


def _send_rows(
    rows: pa.Table | pyarrow.dataset.Dataset, columns: Sequence[str], partition: "partial[pa.Table]"
) -> ray.data.Dataset:
    """Partition the keys and timestamps of the rows: read by the tasks if they are in files, else sent to them."""
    if isinstance(rows, pyarrow.dataset.FileSystemDataset) and rows.count_rows():
        read = partial(_read_range, columns, partition)
        return shuffle.map_items(shuffle.split_table(rows), read, shuffle.PARTITION_SCHEMA)
    table = rows.select(columns) if isinstance(rows, pa.Table) else rows.to_table(columns=list(columns))
    table = table.append_column(_ROW_NUMBER, pa.array(np.arange(len(table))))
    blocks = [table.slice(start, ROWS_PER_TASK) for start in range(0, max(1, len(table)), ROWS_PER_TASK)]
    return ray.data.from_arrow(blocks).map_batches(partition, batch_size=None, batch_format="pyarrow")


def _read_range(columns: Sequence[str], partition: "partial[pa.Table]", row_range: RowRange) -> pa.Table:
    rows = row_range.table.to_table(columns=list(columns))
    return partition(rows.append_column(_ROW_NUMBER, pa.array(row_range.first + np.arange(len(rows)))))


def _partition_rows(view: ViewTable, partitions: int, rows: pa.Table) -> pa.Table:
    version_types = [view.table.schema.field(column).type for column in view.keys.values()]
    with training_set.name_view_in_errors(view):
        partition = key_encoding.assign_partitions(
            [rows[key] for key in view.keys], version_types, len(rows), partitions
        )
    return shuffle.pack_partitions("rows", rows, partition)


def _partition_versions(view: ViewTable, partitions: int, versions: pa.Table) -> pa.Table:
    columns = [versions[key] for key in view.keys.values()]
    types = [column.type for column in columns]
    partition = key_encoding.assign_partitions(columns, types, len(versions), partitions)
    return shuffle.pack_partitions("versions", versions, partition)


def _match_partition(
    view: ViewTable,
    event_timestamp: str,
    created_by_then: bool,
    created_before: datetime | None,
    packed: pa.Table,
) -> pa.Table:
    """Return the matches among the rows and versions of one partition."""
    rows = shuffle.unpack_rows(packed, "rows", by=_ROW_NUMBER)
    order = shuffle.unpack_rows(packed, "versions", by=_ROW_NUMBER)
    if rows is None or order is None:
        return _MATCHES.empty_table()
    versions = training_set.index_view(view, order, created_before)
    position = training_set.look_up_view(view, versions, rows, event_timestamp, created_by_then)
    matched = np.flatnonzero(position >= 0)
    row_numbers = rows[_ROW_NUMBER].take(pa.array(matched))
    return pa.table([row_numbers, order[_ROW_NUMBER].take(pa.array(position[matched]))], schema=_MATCHES)
