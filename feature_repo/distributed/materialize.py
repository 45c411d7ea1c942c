"""Materialization, shuffled by join key: a task finds its entities' newest rows, and whoever reads a file packs and
sends those of them that lie in it.

The first exchange moves keys and times, the second one row numbers: no vector moves but from its file to the online
store, and none that is not the newest of the group. Tasks that send at once do no harm, and neither does one that is
done twice: the store keeps the newest row.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from feature_repo.arrow import take
from feature_repo.distributed import cluster, shuffle
from feature_repo.offline import asof, key_encoding, key_ranges
from feature_repo.offline import versions as history
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
"""Rows written between two entries in the ledger."""
_FILE, _ROW = "vitrine file", "vitrine row number"
_SENT = pa.schema([("rows", pa.int64())])


def make_writer(store: Store, project: str, packer: Packer) -> WriteGroup:
    """Writes a group from the cluster that the program is connected to (`materialize.make_writer`).

    A store that other machines do not reach is written to by tasks on the machine of this program.
    """

    def write(source: OfflineSource, group: FileGroup) -> Iterator[int]:
        files = [select_files(source.table, [fragment]) for fragment in group.table.get_fragments()]
        if not files:
            return
        parts = shuffle.count_partitions(group.row_count)
        places = shuffle.map_items(
            range(len(files)), partial(_order, source, group, files, parts), shuffle.PARTITION_SCHEMA
        )
        newest = shuffle.group_by_partition([places], "part", parts, partial(_newest, source))
        sent = shuffle.group_by_partition(
            [newest],
            "part",
            min(len(files), 4 * cluster.count_cpus()),
            partial(_send, source, group, files, store, project, packer),
            **(cluster.local_task_options() if store.is_local else {}),
        )
        for done in cluster.iterate_results(sent):
            yield from done["rows"].to_pylist()

    return write


def _order(
    source: OfflineSource, group: FileGroup, files: Sequence[pyarrow.dataset.Dataset], parts: int, number: int
) -> pa.Table:
    """Keys, times and places of a file's rows, in parts by key."""
    columns = [*source.keys, source.event_timestamp, *filter(None, [source.created_timestamp])]
    rows = files[number].to_table(columns=list(dict.fromkeys(columns)), filter=build_row_filter(source, group.window))
    rows = rows.append_column(_FILE, pa.array(np.full(len(rows), number)))
    rows = rows.append_column(_ROW, pa.array(np.arange(len(rows))))
    key_columns = [rows[key] for key in source.keys]
    part = key_encoding.assign_partitions(key_columns, [column.type for column in key_columns], len(rows), parts)
    return shuffle.pack_partitions("order", rows, part)


def _newest(source: OfflineSource, group: pa.Table) -> pa.Table:
    """Places of the newest row of each of the group's entities, in parts by file."""
    order = shuffle.unpack_rows(group, "order", by=_ROW)
    assert order is not None
    order = order.sort_by([(_FILE, "ascending"), (_ROW, "ascending")])
    versions = asof.index_versions(
        [order[key] for key in source.keys],
        order[source.event_timestamp],
        order[source.created_timestamp] if source.created_timestamp else None,
    )
    newest = order.select([_FILE, _ROW]).take(pa.array(history.newest_positions(versions)))
    return shuffle.pack_partitions("newest", newest, newest[_FILE].to_numpy())


def _send(
    source: OfflineSource,
    group: FileGroup,
    files: Sequence[pyarrow.dataset.Dataset],
    store: Store,
    project: str,
    packer: Packer,
    places: pa.Table,
) -> pa.Table:
    """Read, pack and send the rows of one file that are the newest of their entities."""
    newest = shuffle.unpack_rows(places, "newest", by=_ROW)
    assert newest is not None
    table = files[int(places["part"][0].as_py())]
    online = OnlineTable(store, project)
    columns = list(dict.fromkeys(source.columns.values()))
    batches = take.take_batches(table, newest[_ROW].to_numpy(), columns, where=build_row_filter(source, group.window))
    for block in key_ranges.concat_batches(batches, BLOCK_ROWS):
        store.write(*packer.pack(online, source.rename_columns(block)), packer.view.ttl_us)
    return pa.table([[table.count_rows()]], schema=_SENT)
