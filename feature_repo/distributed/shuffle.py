"""Send rows to the task that handles their key, as Arrow streams.

A task that reads rows splits them into partitions by key, and each partition travels as one Arrow stream. So the
exchange moves a few values per file instead of one per row, and every column keeps its type.

    part    int64         the partition
    kind    string        what the rows are
    stream  large_binary  the rows, an Arrow IPC stream
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import ray.data
from numpy.typing import NDArray

from feature_repo.distributed import cluster

Int64 = NDArray[np.int64]

ROWS_PER_PARTITION = 5_000_000
"""Keys, timestamps and row numbers of this many rows take some 300 megabytes in a task."""
PARTITION_SCHEMA = pa.schema([("part", pa.int64()), ("kind", pa.string()), ("stream", pa.large_binary())])


@dataclass(frozen=True)
class RowRange:
    """Consecutive rows of a table, read by one task."""

    first: int
    """Position of the first row in the table, counted from 0."""
    table: pyarrow.dataset.FileSystemDataset
    """A table of these rows only, with all columns."""


def split_table(table: pyarrow.dataset.FileSystemDataset) -> list[RowRange]:
    """Split a table into ranges that tasks can read independently, in the table's order.

    A range is one row group of a Parquet file, or a whole file of another format. A table without files has no ranges.
    """
    ranges: list[RowRange] = []
    first = 0
    for fragment in table.get_fragments():
        for part in fragment.split_by_row_group() if hasattr(fragment, "split_by_row_group") else [fragment]:
            # `count_rows` of a row group returns the rows of the whole file.
            rows = sum(group.num_rows for group in part.row_groups) if part is not fragment else part.count_rows()
            piece = pyarrow.dataset.FileSystemDataset([part], table.schema, table.format, table.filesystem)
            ranges.append(RowRange(first, piece))
            first += rows
    return ranges


def count_partitions(rows: int) -> int:
    """Return the number of partitions into which to split a number of rows.

    It is at least the number of processors of the connected cluster, and large enough that a partition has
    ROWS_PER_PARTITION rows or fewer on average.
    """
    return max(cluster.count_cpus(), -(-rows // ROWS_PER_PARTITION))


def map_items(items: Sequence[Any], work: Callable[[Any], pa.Table], schema: pa.Schema) -> ray.data.Dataset:
    """Return a data set of the rows that `work` returns for each item, in no fixed order.

    Each item is handled by a task of its own. The tasks start when the data set is read; without items, it has no rows.

    Args:
        items: items that can be pickled.
        work: returns the rows of one item; it can be pickled too.
        schema: schema of those rows.
    """

    def work_on_batch(batch: pa.Table) -> pa.Table:
        return pa.concat_tables([schema.empty_table(), *(work(items[i]) for i in batch["id"].to_pylist())])

    numbers = ray.data.range(len(items), override_num_blocks=max(1, len(items)))
    return numbers.map_batches(work_on_batch, batch_size=1, batch_format="pyarrow")


def map_partitions(
    inputs: Sequence[ray.data.Dataset],
    by: str,
    partitions: int,
    work: Callable[[pa.Table], pa.Table],
    **options: Any,
) -> ray.data.Dataset:
    """Return a data set of the rows that `work` returns for each value of a column, in no fixed order.

    `work` is called once for each value, with all rows that have it. The tasks start when the data set is read.

    Args:
        inputs: data sets of one schema, at least one, whose rows are put together.
        by: name of the column.
        partitions: number of parts into which Ray splits the values while it exchanges rows between tasks.
        work: returns the rows of one group; its argument has the rows in no fixed order.
        options: options of the tasks, as `ray.remote` takes them.
    """
    rows = inputs[0].union(*inputs[1:]) if len(inputs) > 1 else inputs[0]
    return rows.groupby(by, num_partitions=partitions).map_groups(work, batch_format="pyarrow", **options)


def pack_partitions(kind: str, rows: pa.Table, partition: Int64) -> pa.Table:
    """Pack rows into one stream for each partition that has rows.

    Args:
        kind: a name for what the rows are, by which `unpack_rows` finds them.
        rows: the rows.
        partition: [rows] partition of each row; rows with -1 are left out.

    Returns:
        A table of PARTITION_SCHEMA with one row per partition in use, ascending; no rows if none is in use. A stream
        keeps the order of its rows.
    """
    order = np.argsort(partition, kind="stable")
    order = order[np.searchsorted(partition[order], 0) :]
    used, starts = np.unique(partition[order], return_index=True)
    rows = rows.take(pa.array(order)).combine_chunks()
    ends = [*starts[1:], len(order)]
    streams = [to_stream(rows.slice(start, end - start)) for start, end in zip(starts, ends, strict=True)]
    return pa.table(
        [pa.array(used, pa.int64()), [kind] * len(used), pa.array(streams, pa.large_binary())], PARTITION_SCHEMA
    )


def unpack_rows(packed: pa.Table, kind: str, by: str) -> pa.Table | None:
    """Return the rows of one kind, sorted by a column in ascending order; None if there is no stream of that kind.

    Args:
        packed: streams, as a table of PARTITION_SCHEMA. Streams of other kinds are ignored.
        kind: the name under which `pack_partitions` packed the rows.
        by: name of the column.
    """
    streams = [
        from_stream(stream)
        for stream, stream_kind in zip(packed["stream"], packed["kind"].to_pylist(), strict=True)
        if stream_kind == kind
    ]
    return pa.concat_tables(streams).sort_by(by).combine_chunks() if streams else None


def to_stream(rows: pa.Table) -> bytes:
    """Return rows as the bytes of an Arrow IPC stream, schema included, so that `from_stream` can read them."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def from_stream(stream: pa.LargeBinaryScalar) -> pa.Table:
    """Return the rows of an Arrow IPC stream. They are not copied: they use the memory of `stream`."""
    return pa.ipc.open_stream(stream.as_buffer()).read_all()
