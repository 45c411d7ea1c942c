"""Training sets larger than memory: joined block by block, kept in a folder in normalised form.

    FOLDER/row_index/VIEW.npy      int64 [rows]: each row's version in versions/VIEW.parquet, -1 for none
    FOLDER/versions/VIEW.parquet   the versions that some row got, each once

The rows themselves stay where they are, in their order. Memory is bounded by a block of rows and by the keys and times
of `versions_at_once` versions: of a longer history, one range of keys is joined after another, each in a pass over the
keys. The row numbers are files mapped into memory, so the disk is what limits them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet

from feature_repo.arrow import take, timestamps
from feature_repo.atomic_write import replace_atomically
from feature_repo.errors import VitrineError
from feature_repo.offline import asof, key_ranges, training_set
from feature_repo.offline.training_set import ViewTable

Int64 = npt.NDArray[np.int64]

BLOCK_ROWS = 1_000_000
"""Rows joined at a time: a string key and a time of so many are some 40 megabytes."""
VERSIONS_AT_ONCE = 20_000_000
"""Versions whose keys and times are held at once: with ids of a dozen letters, some 2 gigabytes."""


@dataclass(frozen=True)
class TrainingSetOnDisk:
    """A training set on disk. Its arrays and tables are read as they are touched."""

    rows: pyarrow.dataset.Dataset
    row_index: Mapping[str, Int64]
    """Feature view -> [rows] the row's version, -1 for none; mapped from its file, read-only."""
    versions: Mapping[str, pyarrow.dataset.Dataset]
    """Feature view -> its distinct versions in use, columns named as in the result."""

    def to_batches(self, *, rows: int = 65_536) -> Iterator[pa.Table]:
        """The rows in their order with every feature beside them, at most `rows` at a time.

        The distinct versions are held in memory while this runs.
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
    """`training_set.join` into a folder, which appears when all is written or not at all.

    Args:
        find: looks the rows up; None: this process.

    Raises:
        VitrineError: as `training_set.join`; the folder exists already.
    """
    if folder.exists():
        raise VitrineError(f"{folder} exists; name a new folder for the training set, or remove this one")
    training_set.require_unambiguous_columns(rows.schema, event_timestamp, views)
    earliest = _earliest(rows, event_timestamp, block_rows) if created_by_then else None
    training_set.require_kept_versions(views, [moment for moment in (earliest, created_before) if moment])
    find = find or partial(look_up_by_ranges, block_rows=block_rows, versions_at_once=versions_at_once)
    with replace_atomically(folder) as unfinished:
        (unfinished / "row_index").mkdir(parents=True)
        (unfinished / "versions").mkdir()
        for view in views:
            file = unfinished / "row_index" / f"{view.name}.npy"
            index = np.lib.format.open_memmap(file, mode="w+", dtype=np.int64, shape=(rows.count_rows(),))
            index[:] = -1
            for numbers, positions in find(rows, event_timestamp, view, created_by_then, created_before):
                index[numbers] = positions
            used = take.renumber(index, view.table.count_rows())
            index.flush()
            _write_versions(view, used, unfinished / "versions" / f"{view.name}.parquet")
    return read(folder, rows)


def read(folder: Path, rows: pyarrow.dataset.Dataset) -> TrainingSetOnDisk:
    """Open a training set that `write` made of these rows.

    Raises:
        VitrineError: there is none, or it is one of another number of rows.
    """
    files = {file.stem: file for file in sorted((folder / "row_index").glob("*.npy"))}
    if not files:
        raise VitrineError(f"{folder} holds no training set")
    row_index = {name: np.load(file, mmap_mode="r") for name, file in files.items()}
    for name, index in row_index.items():
        if len(index) != rows.count_rows():
            raise VitrineError(f"{folder}, `{name}`: made of {len(index):,} rows, and these are {rows.count_rows():,}")
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
    """Look rows up block by block, in one range of the view's keys after another."""
    asked = pyarrow.dataset.dataset(rows) if isinstance(rows, pa.Table) else rows
    first_key = next(iter(view.keys.items()), None)
    for within in (
        key_ranges.split_by_key(view.table, first_key[1], versions_at_once) if first_key else [key_ranges.KeyRange()]
    ):
        versions, position = _versions_within(view, within, created_before)
        offset = 0
        for block in key_ranges.read_blocks(asked, list(dict.fromkeys([*view.keys, event_timestamp])), block_rows):
            mine = within.mask(block[first_key[0]]) if first_key else np.ones(len(block), dtype=bool)
            within_range = block if mine.all() else block.filter(pa.array(mine))
            found = training_set.look_up_view(view, versions, within_range, event_timestamp, created_by_then)
            yield offset + np.flatnonzero(mine), np.append(position, -1)[found]
            offset += len(block)


def _versions_within(
    view: ViewTable, within: key_ranges.KeyRange, created_before: datetime | None
) -> tuple[asof.VersionIndex, Int64]:
    """The versions in the range, in the order of the join, and the table position of each row they number."""
    columns = training_set.key_and_time_columns(view)
    if within.unbounded:
        order = view.table.to_table(columns=columns)
        return training_set.index_view(view, order, created_before), np.arange(len(order))
    kept: list[pa.Table] = []
    position: list[Int64] = []
    offset = 0
    for block in key_ranges.read_blocks(view.table, columns, BLOCK_ROWS):
        mine = within.mask(block[next(iter(view.keys.values()))])
        kept.append(block.filter(pa.array(mine)))
        position.append(np.flatnonzero(mine) + offset)
        offset += len(block)
    return training_set.index_view(view, pa.concat_tables(kept), created_before), np.concatenate(position)


def _write_versions(view: ViewTable, used: Int64, path: Path) -> None:
    batches = take.take_batches(view.table, used, list(dict.fromkeys(view.features.values())))
    schema = pa.schema([view.table.schema.field(column).with_name(name) for name, column in view.features.items()])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for batch in batches:
            columns = [batch.column(column).cast(schema.field(name).type) for name, column in view.features.items()]
            writer.write_table(pa.table(columns, schema=schema))


def _earliest(rows: pyarrow.dataset.Dataset, event_timestamp: str, block_rows: int) -> datetime | None:
    lows = [
        pc.min(timestamps.to_utc(block[event_timestamp]))
        for block in key_ranges.read_blocks(rows, [event_timestamp], block_rows)
    ]
    return min((timestamps.scalar_to_datetime(low) for low in lows if low.is_valid), default=None)
