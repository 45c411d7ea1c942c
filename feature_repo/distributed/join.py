"""The as-of join, shuffled by join key: the rows and the versions of a key meet in one task.

As on one machine, only keys, times and row numbers move. Each task looks its rows up by the very functions of
`training`, and what comes back is a row number and a position in the table: a vector is read once, by whoever wants the
training set.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset
import ray.data

from feature_repo.distributed import cluster, shuffle
from feature_repo.distributed.shuffle import RowRange
from feature_repo.offline import key_encoding, training_set, training_set_on_disk
from feature_repo.offline.training_set import ViewTable

ROWS_AT_ONCE = 1_000_000
"""Rows in memory that go to one task to be cut into parts."""
_PLACE = "vitrine row number"
_FOUND = pa.schema([("row", pa.int64()), ("version", pa.int64())])


def look_up_rows(
    rows: pa.Table | pyarrow.dataset.Dataset,
    event_timestamp: str,
    view: ViewTable,
    created_by_then: bool,
    created_before: datetime | None,
) -> training_set.Matches:
    """Look rows up in a view, on the cluster that the program is connected to (`training_set.Lookup`).

    A view without keys is one history, and has no key to shuffle by: this process looks it up.
    """
    versions = view.table.count_rows()
    if not view.keys or not versions:
        yield from training_set_on_disk.look_up_by_ranges(rows, event_timestamp, view, created_by_then, created_before)
        return
    parts = shuffle.count_partitions(versions + (len(rows) if isinstance(rows, pa.Table) else rows.count_rows()))
    # The tasks need the view's names alone, and not a table of however many files.
    table = view.table
    named = replace(
        view, table=pyarrow.dataset.FileSystemDataset([], table.schema, table.format, filesystem=table.filesystem)
    )
    asked = _rows_sent(rows, list(dict.fromkeys([*view.keys, event_timestamp])), partial(_parted_rows, named, parts))
    read = partial(_read, training_set.key_and_time_columns(view), partial(_parted_versions, named, parts))
    had = shuffle.map_items(shuffle.split_table(table), read, shuffle.PARTITION_SCHEMA)
    match = partial(_match, named, event_timestamp, created_by_then, created_before)
    for found in cluster.iterate_results(shuffle.group_by_partition([asked, had], "part", parts, match)):
        yield found["row"].to_numpy(), found["version"].to_numpy()


def _rows_sent(
    rows: pa.Table | pyarrow.dataset.Dataset, wanted: Sequence[str], parted: "partial[pa.Table]"
) -> ray.data.Dataset:
    """The rows' keys and times: read by the tasks where they are in files, else handed to them."""
    if isinstance(rows, pyarrow.dataset.FileSystemDataset) and rows.count_rows():
        return shuffle.map_items(shuffle.split_table(rows), partial(_read, wanted, parted), shuffle.PARTITION_SCHEMA)
    table = rows.select(wanted) if isinstance(rows, pa.Table) else rows.to_table(columns=list(wanted))
    table = table.append_column(_PLACE, pa.array(np.arange(len(table))))
    blocks = [table.slice(start, ROWS_AT_ONCE) for start in range(0, max(1, len(table)), ROWS_AT_ONCE)]
    return ray.data.from_arrow(blocks).map_batches(parted, batch_size=None, batch_format="pyarrow")


def _read(columns: Sequence[str], parted: "partial[pa.Table]", stretch: RowRange) -> pa.Table:
    rows = stretch.table.to_table(columns=list(columns))
    return parted(rows.append_column(_PLACE, pa.array(stretch.first + np.arange(len(rows)))))


def _parted_rows(view: ViewTable, parts: int, rows: pa.Table) -> pa.Table:
    of_versions = [view.table.schema.field(column).type for column in view.keys.values()]
    with training_set.name_view_in_errors(view):
        part = key_encoding.assign_partitions([rows[key] for key in view.keys], of_versions, len(rows), parts)
    return shuffle.pack_partitions("rows", rows, part)


def _parted_versions(view: ViewTable, parts: int, versions: pa.Table) -> pa.Table:
    columns = [versions[key] for key in view.keys.values()]
    part = key_encoding.assign_partitions(columns, [column.type for column in columns], len(versions), parts)
    return shuffle.pack_partitions("versions", versions, part)


def _match(
    view: ViewTable,
    event_timestamp: str,
    created_by_then: bool,
    created_before: datetime | None,
    group: pa.Table,
) -> pa.Table:
    """What one task finds, of the rows and the versions of its keys."""
    rows = shuffle.unpack_rows(group, "rows", by=_PLACE)
    order = shuffle.unpack_rows(group, "versions", by=_PLACE)
    if rows is None or order is None:
        return _FOUND.empty_table()
    versions = training_set.index_view(view, order, created_before)
    position = training_set.look_up_view(view, versions, rows, event_timestamp, created_by_then)
    there: npt.NDArray[np.int64] = np.flatnonzero(position >= 0)
    return pa.table([rows[_PLACE].take(pa.array(there)), order[_PLACE].take(pa.array(position[there]))], schema=_FOUND)
