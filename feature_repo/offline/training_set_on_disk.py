"""Training sets larger than memory: joined block by block and kept in a folder in normalized form.

    FOLDER/row_index/VIEW.npy      int64 [rows]: each row's version in versions/VIEW.parquet, -1 for none
    FOLDER/versions/VIEW.parquet   the versions in use, each once

The rows themselves stay where they are, in their order. Memory is bounded by one block of rows and by the keys and
timestamps of `versions_at_once` versions. A longer history is joined range of keys by range of keys, each in one pass
over the keys. Row numbers are memory-mapped files, so their number is limited by the disk.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet
from numpy.typing import NDArray

from feature_repo.arrow import take, timestamps
from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError
from feature_repo.files.array_file import create_array_file
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.offline import asof, key_ranges, training_set
from feature_repo.offline.training_set import ViewTable

Int64 = NDArray[np.int64]

BLOCK_ROWS = 1_000_000
"""Rows joined at a time: a string key and a timestamp of each take some 40 megabytes."""
VERSIONS_AT_ONCE = 20_000_000
"""Versions whose keys and timestamps are in memory at a time: some 2 gigabytes with ids of a dozen letters."""


@dataclass(frozen=True)
class TrainingSetOnDisk:
    """A training set in a folder. Its arrays and tables are read when they are used."""

    rows: pyarrow.dataset.Dataset
    """The rows that were joined, where they are stored; they are not in the folder."""
    row_index: Mapping[str, Int64]
    """Feature view -> int64 [rows], each row's version as an index into the view's `versions`; -1 for none.
    Memory-mapped, read-only. The views are in alphabetical order."""
    versions: Mapping[str, pyarrow.dataset.Dataset]
    """Feature view -> its versions in use, each once, in the order of the view's table. Columns are the features, named
    as in the result."""

    def to_batches(self, *, rows: int = 65_536) -> Iterator[pa.Table]:
        """Yield the rows in their order with a column for every feature; null where a view has no version.

        The columns of the rows come first, then those of each view in the order of `row_index`. The versions in use of
        all views are in memory while this runs.

        Args:
            rows: the largest number of rows in one table; any table may have fewer.
        """
        versions = {name: table.to_table() for name, table in self.versions.items()}
        offset = 0
        for batch in self.rows.to_batches(batch_size=rows):
            table = pa.Table.from_batches([batch])
            for name, index in self.row_index.items():
                number = np.asarray(index[offset : offset + batch.num_rows])
                for column in versions[name].column_names:
                    table = table.append_column(column, take.take_column(versions[name][column], number))
            offset += batch.num_rows
            yield table


def write(
    rows: pyarrow.dataset.Dataset,
    event_timestamp: str,
    views: Sequence[ViewTable],
    folder: Path,
    *,
    created_by_then: bool = False,
    created_before: datetime | None = None,
    find: training_set.Lookup | None = None,
    block_rows: int = BLOCK_ROWS,
    versions_at_once: int = VERSIONS_AT_ONCE,
) -> TrainingSetOnDisk:
    """Join rows with views, as `training_set.join` does, into a folder. The folder appears complete or not at all.

    Args:
        rows: the views' join keys, a timestamp and any further columns. Null keys and timestamps match nothing.
        event_timestamp: name of the timestamp column in `rows`.
        views: the feature views, at least one.
        folder: the folder to create; it must not exist, not even empty. Parent folders are created.
        created_by_then: use only versions that had been created by the row's own time, inclusive. Views without a
            created timestamp ignore it.
        created_before: use only versions created before this time, exclusive; None: no limit. Views without a created
            timestamp ignore it.
        find: the function that looks the rows up, for example on a cluster; None looks them up in this process.
        block_rows: rows joined at a time, if `find` is None.
        versions_at_once: versions whose keys are in memory at a time, if `find` is None.

    Returns:
        The training set in the folder, opened.

    Raises:
        ConflictError: the folder exists.
        NotFoundError: `rows` lacks a join key or the timestamp.
        InvalidInputError: there are no views; a column has a type that cannot be joined, or would be in the result
            twice; or versions that the join would need may have been dropped by the retention.
    """
    if not views:
        raise InvalidInputError("a training set needs at least one feature view to join; none is given")
    if folder.exists():
        raise ConflictError(f"{folder} exists; give a new folder for the training set, or remove this one")
    training_set.require_unambiguous_columns(rows.schema, event_timestamp, views)
    earliest = _find_earliest(rows, event_timestamp, block_rows) if created_by_then else None
    training_set.require_kept_versions(views, [time for time in (earliest, created_before) if time])
    find = find or partial(look_up_by_ranges, block_rows=block_rows, versions_at_once=versions_at_once)
    with replace_atomically(folder) as unfinished:
        (unfinished / "row_index").mkdir(parents=True)
        (unfinished / "versions").mkdir()
        for view in views:
            file = unfinished / "row_index" / f"{view.name}.npy"
            index = create_array_file(file, np.int64, (rows.count_rows(),))
            index[:] = -1
            for numbers, positions in find(rows, event_timestamp, view, created_by_then, created_before):
                index[numbers] = positions
            used = take.renumber(index, view.table.count_rows())
            index.flush()
            _write_versions(view, used, unfinished / "versions" / f"{view.name}.parquet")
    return read(folder, rows)


def read(folder: Path, rows: pyarrow.dataset.Dataset) -> TrainingSetOnDisk:
    """Open a training set that `write` created.

    Args:
        folder: the folder of the training set.
        rows: the rows from which it was created, in the same order. Only their number is checked.

    Raises:
        NotFoundError: the folder holds no training set.
        InvalidInputError: it was created from another number of rows.
    """
    files = {file.stem: file for file in sorted((folder / "row_index").glob("*.npy"))}
    if not files:
        raise NotFoundError(f"{folder} holds no training set; create it with `training_set_on_disk.write`")
    row_index = {name: np.load(file, mmap_mode="r") for name, file in files.items()}
    for name, index in row_index.items():
        if len(index) != rows.count_rows():
            raise InvalidInputError(
                f"{folder}, `{name}`: created from {len(index):,} rows, but {rows.count_rows():,} rows were given; "
                "give the same rows"
            )
    versions = {name: pyarrow.dataset.dataset(folder / "versions" / f"{name}.parquet") for name in files}
    return TrainingSetOnDisk(rows, row_index, versions)


def look_up_by_ranges(
    rows: pa.Table | pyarrow.dataset.Dataset,
    event_timestamp: str,
    view: ViewTable,
    created_by_then: bool,
    created_before: datetime | None,
    *,
    block_rows: int = BLOCK_ROWS,
    versions_at_once: int = VERSIONS_AT_ONCE,
) -> training_set.Matches:
    """Look rows up block by block, for one range of the view's keys after another (`training_set.Lookup`).

    Args:
        rows: rows with the view's join keys and the timestamp; read once for each range.
        event_timestamp: name of the timestamp column in `rows`.
        view: the feature view.
        created_by_then: use only versions that had been created by the row's own time, inclusive.
        created_before: use only versions created before this time, exclusive; None: no limit.
        block_rows: rows joined at a time.
        versions_at_once: about how many versions one range holds; their keys and timestamps are in memory.

    Yields:
        int64 [m] positions of some rows in `rows`, ascending, and int64 [m] the position of each one's version in the
        view's table, -1 for none; both are counted from 0. Rows with a null key may be in no pair.

    Raises:
        InvalidInputError: a key or the timestamp cannot be compared with the view's.
    """
    dataset = pyarrow.dataset.dataset(rows) if isinstance(rows, pa.Table) else rows
    first_key = next(iter(view.keys.items()), None)
    whole = [key_ranges.KeyRange()]
    for key_range in key_ranges.split_by_key(view.table, first_key[1], versions_at_once) if first_key else whole:
        versions, position = _index_range(view, key_range, created_before)
        offset = 0
        for block in key_ranges.read_blocks(dataset, list(dict.fromkeys([*view.keys, event_timestamp])), block_rows):
            in_range = key_range.contains(block[first_key[0]]) if first_key else np.ones(len(block), dtype=bool)
            selected = block if in_range.all() else block.filter(pa.array(in_range))
            matches = training_set.look_up_view(view, versions, selected, event_timestamp, created_by_then)
            yield offset + np.flatnonzero(in_range), np.append(position, -1)[matches]
            offset += len(block)


def _index_range(
    view: ViewTable, key_range: key_ranges.KeyRange, created_before: datetime | None
) -> tuple[asof.VersionIndex, Int64]:
    """Index the versions in a range of keys. Also return the table position of each row that the index numbers."""
    columns = training_set.key_and_time_columns(view)
    if key_range.is_unbounded:
        order = view.table.to_table(columns=columns)
        return training_set.index_view(view, order, created_before), np.arange(len(order))
    parts: list[pa.Table] = []
    position: list[Int64] = []
    offset = 0
    for block in key_ranges.read_blocks(view.table, columns, BLOCK_ROWS):
        in_range = key_range.contains(block[next(iter(view.keys.values()))])
        parts.append(block.filter(pa.array(in_range)))
        position.append(np.flatnonzero(in_range) + offset)
        offset += len(block)
    return training_set.index_view(view, pa.concat_tables(parts), created_before), np.concatenate(position)


def _write_versions(view: ViewTable, used: Int64, path: Path) -> None:
    batches = take.take_batches(view.table, used, list(dict.fromkeys(view.features.values())))
    schema = pa.schema([view.table.schema.field(column).with_name(name) for name, column in view.features.items()])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for batch in batches:
            columns = [batch.column(column).cast(schema.field(name).type) for name, column in view.features.items()]
            writer.write_table(pa.table(columns, schema=schema))


def _find_earliest(rows: pyarrow.dataset.Dataset, event_timestamp: str, block_rows: int) -> datetime | None:
    """Return the earliest timestamp of the rows; None if all are null."""
    minima = [
        pc.min(timestamps.to_utc(block[event_timestamp]))
        for block in key_ranges.read_blocks(rows, [event_timestamp], block_rows)
    ]
    return min((timestamps.scalar_to_datetime(low) for low in minima if low.is_valid), default=None)
