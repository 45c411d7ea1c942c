"""Materialization on a Ray cluster: tasks find the newest row of each entity; tasks per file pack and write them.

The first exchange moves keys and timestamps, the second one row numbers. A vector moves once, from its file to the
online store, and only if it belongs to the newest row of its entity in the group. Tasks may write at the same time and
may be repeated, because the store keeps the newest row.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from feature_repo.arrow import take
from feature_repo.distributed import cluster, shuffle
from feature_repo.offline import asof, key_encoding, key_ranges
from feature_repo.offline.versions import newest_positions
from feature_repo.online.materialize import (
    BLOCK_ROWS,
    FileGroup,
    OfflineSource,
    Packer,
    WriteGroup,
    build_row_filter,
    select_files,
)
from feature_repo.online.store import Store
from feature_repo.online.table import OnlineTable

ROWS_PER_ENTRY = 50_000_000
"""Rows written between two entries in the materialization log."""
_FILE, _ROW = "vitrine file", "vitrine row number"
_SENT = pa.schema([("rows", pa.int64())])


def make_writer(store: Store, project: str, packer: Packer) -> WriteGroup:
    """Return a function that writes a group of files on the connected cluster.

    It takes the place of `feature_repo.online.materialize.make_writer`. A store that other machines cannot reach is
    written to by tasks on this machine.

    Args:
        store: the online store.
        project: the Feast project whose rows are written.
        packer: packs rows of the view.

    Returns:
        A function of the source and the group. It yields, as each file is done, how many rows the file holds, whether
        they were written or not. It yields nothing for a file in which no entity has its newest row of the group.
    """

    def write(source: OfflineSource, group: FileGroup) -> Iterator[int]:
        files = [select_files(source.table, [fragment]) for fragment in group.table.get_fragments()]
        if not files:
            return
        partitions = shuffle.count_partitions(group.row_count)
        order = shuffle.map_items(
            range(len(files)), partial(_read_order, source, group, files, partitions), shuffle.PARTITION_SCHEMA
        )
        newest = shuffle.map_partitions([order], "part", partitions, partial(_find_newest, source))
        sent = shuffle.map_partitions(
            [newest],
            "part",
            min(len(files), 4 * cluster.count_cpus()),
            partial(_write_file, source, group, files, store, project, packer),
            **(cluster.local_task_options() if store.is_local else {}),
        )
        for done in cluster.iterate_results(sent):
            yield from done["rows"].to_pylist()

    return write


def _read_order(
    source: OfflineSource, group: FileGroup, files: Sequence[pyarrow.dataset.Dataset], partitions: int, number: int
) -> pa.Table:
    """Return keys, timestamps and row numbers of one file, partitioned by key."""
    columns = [*source.keys, source.event_timestamp, *filter(None, [source.created_timestamp])]
    rows = files[number].to_table(columns=list(dict.fromkeys(columns)), filter=build_row_filter(source, group.window))
    rows = rows.append_column(_FILE, pa.array(np.full(len(rows), number)))
    rows = rows.append_column(_ROW, pa.array(np.arange(len(rows))))
    key_columns = [rows[key] for key in source.keys]
    types = [column.type for column in key_columns]
    partition = key_encoding.assign_partitions(key_columns, types, len(rows), partitions)
    return shuffle.pack_partitions("order", rows, partition)


def _find_newest(source: OfflineSource, packed: pa.Table) -> pa.Table:
    """Return file and row number of the newest row of each entity, partitioned by file."""
    order = shuffle.unpack_rows(packed, "order", by=_ROW)
    assert order is not None
    order = order.sort_by([(_FILE, "ascending"), (_ROW, "ascending")])
    versions = asof.index_versions(
        [order[key] for key in source.keys],
        order[source.event_timestamp],
        order[source.created_timestamp] if source.created_timestamp else None,
    )
    newest = order.select([_FILE, _ROW]).take(pa.array(newest_positions(versions)))
    return shuffle.pack_partitions("newest", newest, newest[_FILE].to_numpy())


def _write_file(
    source: OfflineSource,
    group: FileGroup,
    files: Sequence[pyarrow.dataset.Dataset],
    store: Store,
    project: str,
    packer: Packer,
    packed: pa.Table,
) -> pa.Table:
    """Read, pack and write the rows of one file that are the newest of their entities."""
    newest = shuffle.unpack_rows(packed, "newest", by=_ROW)
    assert newest is not None
    table = files[int(packed["part"][0].as_py())]
    online = OnlineTable(store, project)
    columns = list(dict.fromkeys(source.columns.values()))
    batches = take.take_batches(table, newest[_ROW].to_numpy(), columns, where=build_row_filter(source, group.window))
    for block in key_ranges.concat_batches(batches, BLOCK_ROWS):
        store.write(*packer.pack(online, source.rename_columns(block)), packer.view.ttl_us)
    return pa.table([[table.count_rows()]], schema=_SENT)
