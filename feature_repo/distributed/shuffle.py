"""Rows to the task that has all rows of their key: an exchange of Arrow streams.

A task that reads rows cuts them into parts by key, and each part travels as one Arrow stream: the exchange moves a few
values per file instead of one per row, and every column arrives in the type that it had.

    part    int64         which task it is for
    kind    string        what the rows are
    stream  large_binary  the rows, an Arrow IPC stream
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset
import ray.data

from feature_repo.distributed import cluster

Int64 = npt.NDArray[np.int64]

ROWS_PER_PART = 5_000_000
"""Keys, times and row numbers of so many are some 300 megabytes in a task."""
PARTITION_SCHEMA = pa.schema([("part", pa.int64()), ("kind", pa.string()), ("stream", pa.large_binary())])


@dataclass(frozen=True)
class RowRange:
    """Consecutive rows of a table, read by one task."""

    first: int
    """Position of its first row in the table."""
    table: pyarrow.dataset.FileSystemDataset
    """These rows alone."""


def split_table(table: pyarrow.dataset.FileSystemDataset) -> list[RowRange]:
    """A table in pieces that can be read apart: the row groups of its Parquet files, files of other formats whole."""
    found: list[RowRange] = []
    first = 0
    for fragment in table.get_fragments():
        for part in fragment.split_by_row_group() if hasattr(fragment, "split_by_row_group") else [fragment]:
            # Arrow counts the rows of the whole file, whichever of its row groups the fragment is.
            rows = sum(group.num_rows for group in part.row_groups) if part is not fragment else part.count_rows()
            piece = pyarrow.dataset.FileSystemDataset([part], table.schema, table.format, table.filesystem)
            found.append(RowRange(first, piece))
            first += rows
    return found


def count_partitions(rows: int) -> int:
    """Into how many parts so many rows go: enough for all processors, none too large for a task."""
    return max(cluster.count_cpus(), -(-rows // ROWS_PER_PART))


def map_items(items: Sequence[Any], work: Callable[[Any], pa.Table], schema: pa.Schema) -> ray.data.Dataset:
    """What `work` makes of each item, an item a task."""

    def of_some(batch: pa.Table) -> pa.Table:
        return pa.concat_tables([schema.empty_table(), *(work(items[i]) for i in batch["id"].to_pylist())])

    numbers = ray.data.range(len(items), override_num_blocks=max(1, len(items)))
    return numbers.map_batches(of_some, batch_size=1, batch_format="pyarrow")


def group_by_partition(
    sent: Sequence[ray.data.Dataset], by: str, parts: int, work: Callable[[pa.Table], pa.Table], **options: Any
) -> ray.data.Dataset:
    """What `work` makes of all that is of one `by`.

    Args:
        options: of the task, as `ray.remote` takes them.
    """
    together = sent[0].union(*sent[1:]) if len(sent) > 1 else sent[0]
    return together.groupby(by, num_partitions=parts).map_groups(work, batch_format="pyarrow", **options)


def pack_partitions(kind: str, rows: pa.Table, part: Int64) -> pa.Table:
    """Rows as SCHEMA; those of part -1 are left where they are."""
    order = np.argsort(part, kind="stable")
    sorted_part = part[order]
    order = order[np.searchsorted(sorted_part, 0) :]
    sent, starts = np.unique(part[order], return_index=True)
    rows = rows.take(pa.array(order)).combine_chunks()
    ends = [*starts[1:], len(order)]
    streams = [to_stream(rows.slice(start, end - start)) for start, end in zip(starts, ends, strict=True)]
    return pa.table(
        [pa.array(sent, pa.int64()), [kind] * len(sent), pa.array(streams, pa.large_binary())], PARTITION_SCHEMA
    )


def unpack_rows(parts: pa.Table, kind: str, by: str) -> pa.Table | None:
    """The rows of one kind in the order of their column `by`; None if there are none."""
    streams = [
        from_stream(stream) for stream, of in zip(parts["stream"], parts["kind"].to_pylist(), strict=True) if of == kind
    ]
    return pa.concat_tables(streams).sort_by(by).combine_chunks() if streams else None


def to_stream(rows: pa.Table) -> bytes:
    """Rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def from_stream(stream: pa.LargeBinaryScalar) -> pa.Table:
    """The rows of an Arrow IPC stream, not copied."""
    return pa.ipc.open_stream(stream.as_buffer()).read_all()
