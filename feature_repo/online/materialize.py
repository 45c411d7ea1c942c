"""Materialize: write an offline table to an online store, block by block, in memory that does not grow with the table.

Groups of files are written with the latest event times first, and of each entity only the newest version
(newest_rows.py); where a version is written that is not the newest, the store keeps the newest. While the store takes
one block, the next one is read and packed. When a group of files is online, it is added to the log
(materialization_log.py). A run after a killed run starts behind the last group in the log; writing a row twice changes
nothing.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from pyarrow.fs import SubTreeFileSystem

from feature_repo.arrow import columns, take, timestamps
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.errors import InvalidInputError
from feature_repo.location import Location
from feature_repo.offline import key_ranges, rewritten_files, versions
from feature_repo.online import entity_keys
from feature_repo.online.catalog import View
from feature_repo.online.materialization_log import MaterializationLog, TimeWindow
from feature_repo.online.newest_rows import NewestRows
from feature_repo.online.table import OnlineTable

BLOCK_ROWS = 16_384
"""Rows that are read, packed and sent to the store at once, at most."""
ROWS_PER_ENTRY = 200_000
"""Rows of a group of files, at most, except that one file may have more. Each group is an entry in the log.
`delta.append` writes files of at most 100 MB."""

Fragment: TypeAlias = pyarrow.dataset.ParquetFileFragment
Packed = tuple[list[bytes], list[bytes]]
"""Keys, and the packed row of each."""


@dataclass(frozen=True)
class OfflineSource:
    """The offline table to read, and the meaning of its columns."""

    table: pyarrow.dataset.FileSystemDataset
    """All files of the table."""
    columns: Mapping[str, str]
    """The columns to read: the name that `Packer` expects -> the name in the table."""
    keys: Sequence[str]
    """Names of the table's columns with the join keys; a row with a null in one of them is not written."""
    event_timestamp: str
    """Name of the table's column with the event timestamp; a row with a null in it is not written."""
    created_timestamp: str | None = None
    """Name of the table's column with the created timestamp; None if it has none."""
    encoder_version: str | None = None
    """Only rows of this encoder version are written; None: all rows."""
    path: Location | None = None
    """Where the table is, if it is a Delta table, whose compactions and deletions are then followed; else None."""

    def rename_columns(self, rows: pa.Table) -> pa.Table:
        """Return rows of the table with the column names that `Packer` expects, and only those columns.

        Args:
            rows: rows with the table's own column names; a KeyError if one of `columns` is missing.
        """
        return pa.table({name: rows[column] for name, column in self.columns.items()})


@dataclass(frozen=True)
class FileGroup:
    """Files that are written for one window of event times, with one entry in the log."""

    window: TimeWindow
    """The event times that remain to be written of each of the files."""
    files: tuple[str, ...]
    """Names in the log. The statistics of some of them may rule out rows in the window; those are not in `table`."""
    table: pyarrow.dataset.FileSystemDataset
    """The files to read; none if the statistics of all rule out rows in the window."""
    row_count: int
    """Rows of `table`, in the window or not."""


@dataclass(frozen=True)
class Packer:
    """Packs Arrow rows of one view, each as the bytes that the online store holds for one entity."""

    view: View
    """As `StoreCatalog.register_view` returned it."""
    event_timestamp: str
    """The rows' column with the event timestamp."""
    created_timestamp: str | None = None
    """The rows' column with the created timestamp; None if they have none."""
    to_column: Callable[[Field, pa.ChunkedArray], Column] = columns.from_arrow
    """Converts an Arrow column to the column of a feature."""

    def pack(self, online: OnlineTable, rows: pa.Table) -> Packed:
        """Return the keys and packed rows to store: for an entity with several rows only the newest.

        A row is newer if its event timestamp is later or, for equal ones, its created timestamp; of equal rows the last
        is taken. No rows give two empty lists.

        Args:
            online: the project's rows; its dictionaries are extended by new texts.
            rows: must have the view's join keys, its features and the timestamps. No join key may be null.

        Raises:
            InvalidInputError: a column is missing, its type does not fit its feature, a value does not fit its storage,
                or a join key is null.
            UnavailableError: the store does not answer.
        """
        fields, join_keys = self.view.layout.fields, [name for name, _ in self.view.join_keys]
        missing = {*(field.name for field in fields), *join_keys, self.event_timestamp} - set(rows.column_names)
        if missing:
            raise InvalidInputError(
                f"view `{self.view.name}`: the rows have no column {', '.join(sorted(missing))}; "
                f"they have {rows.column_names}"
            )
        return online.pack(
            self.view,
            online.make_keys(
                self.view, {name: entity_keys.from_arrow(rows[name]) for name in join_keys}, rows.num_rows
            ),
            {field.name: self.to_column(field, rows[field.name]) for field in fields},
            timestamps.to_ticks(rows[self.event_timestamp], "us"),
            timestamps.to_ticks(rows[self.created_timestamp], "us") if self.created_timestamp else None,
        )


WriteGroup: TypeAlias = Callable[[OfflineSource, FileGroup], Iterator[int]]
"""Writes a group to the store: at least the newest row of each entity, perhaps older ones. Yields how many rows it has
processed since the last time. When the iterator ends, all rows are stored durably."""


def materialize(
    source: OfflineSource,
    log: MaterializationLog,
    window: TimeWindow,
    *,
    write: WriteGroup,
    start_progress: Callable[[int], Callable[[int], object]],
    rows_per_entry: int | None = None,
) -> None:
    """Write what the log does not have of the window. If it has all, only the end of the run is recorded.

    Rows that a compaction or a deletion only moved to other files are not written again, if the table's log tells so.
    Online rows of entities that the table does not have (any more) stay.

    Args:
        source: the offline table.
        log: the log of the view; it gets an entry for each group of files when the group is online.
        window: the event times that should be online.
        write: writes one group; `make_writer` makes such a function.
        start_progress: called once with the number of rows to process, which may be 0. Returns a function that is
            called with the number of rows processed since its last call.
        rows_per_entry: the most rows of a group of files; a file with more is a group of its own. None: ROWS_PER_ENTRY.

    Raises:
        InvalidInputError: a row cannot be packed.
        ConflictError: the view was dropped or changed meanwhile.
        UnavailableError: the store, or the bucket of the table, does not answer. What the log has stays online.
    """
    fragments = {identify_file(fragment): fragment for fragment in source.table.get_fragments()}
    # Only if files of the log are gone were their rows moved: else the table's log need not be read.
    if source.path is not None and not fragments.keys() >= log.state.files.keys():
        log.add_rewritten(rewritten_files.find_origins(source.path, fragments, log.state.files))
    groups = _find_pending_groups(source, fragments, log, window, rows_per_entry or ROWS_PER_ENTRY)
    report_progress = start_progress(sum(group.row_count for group in groups))
    for group in groups:
        processed = 0
        for rows in write(source, group):
            processed += rows
            report_progress(rows)
        log.add(group.files, group.window)
        report_progress(group.row_count - processed)
    log.finish(list(fragments))


def make_writer(pack: Callable[[pa.Table], Packed], put: Callable[[list[bytes], list[bytes]], object]) -> WriteGroup:
    """Return a function that writes a group from this process, block by block, as `WriteGroup` describes.

    A version is not written if a newer one of its entity is in the group, or in a group that was written before.
    It raises what `pack` or `put` raise; blocks before are stored then.

    Args:
        pack: packs a block, whose columns are named as in `OfflineSource.columns`.
        put: puts keys and rows into the store; they are stored durably when it returns. Called in another thread.
    """
    newest: NewestRows | None = None

    def write(source: OfflineSource, group: FileGroup) -> Iterator[int]:
        nonlocal newest
        newest = newest or NewestRows(source.keys, source.event_timestamp, source.created_timestamp)
        with ThreadPoolExecutor(1) as executor:
            yield from _pack_and_send(
                _read_blocks(source, group, newest), pack, lambda keys, rows: executor.submit(put, keys, rows)
            )

    return write


def identify_file(fragment: Fragment) -> str:
    """Return the name of a file in the log: its path, for other tables than Delta with its modification time.

    The path of a file of a Delta table is relative to the table's folder. In other tables the modification time follows
    an `@`, in nanoseconds since 1970. A file of a Delta table never changes, and a copy of the table gives it another
    modification time.
    """
    if isinstance(fragment.filesystem, SubTreeFileSystem):  # a Delta table
        return fragment.path
    changed = fragment.filesystem.get_file_info(fragment.path).mtime_ns
    return f"{fragment.path}@{changed}"


def select_files(
    table: pyarrow.dataset.FileSystemDataset, fragments: Iterable[Fragment]
) -> pyarrow.dataset.FileSystemDataset:
    """Return the table of some of a table's files, with the same schema.

    Args:
        table: the whole table.
        fragments: the files, in the order in which they are read; none give a table without rows.
    """
    return pyarrow.dataset.FileSystemDataset(list(fragments), table.schema, table.format, table.filesystem)


def build_row_filter(source: OfflineSource, window: TimeWindow) -> pyarrow.dataset.Expression:
    """Return the filter for the rows to write: of the encoder version, event time in the window, no join key null.

    The bounds of the window are included. A row without an event time is not in the window.
    """
    where = _build_window_filter(source, window)
    for key in source.keys:
        where &= pc.field(key).is_valid()
    return where


def _find_pending_groups(
    source: OfflineSource,
    fragments: Mapping[str, Fragment],
    log: MaterializationLog,
    window: TimeWindow,
    rows_per_entry: int,
) -> list[FileGroup]:
    """Return the groups to write, in order: files with the latest event times first."""
    files_by_window: dict[TimeWindow, list[str]] = {}
    pending = log.state.find_pending(fragments, window)
    latest = {file: _find_latest_event(fragments[file], source.event_timestamp) for file in pending}
    for file in sorted(pending, key=lambda file: latest[file], reverse=True):
        files_by_window.setdefault(pending[file], []).append(file)
    return [
        group
        for rest, files in files_by_window.items()
        for group in _group_files(source, rest, {file: fragments[file] for file in files}, rows_per_entry)
    ]


def _find_latest_event(fragment: Fragment, event_timestamp: str) -> float:
    """Return the latest event time of a file, microseconds since 1970, by its statistics; infinity if they lack it."""
    times = [(group.statistics or {}).get(event_timestamp, {}).get("max") for group in fragment.row_groups]
    if not times or not all(isinstance(time, datetime) for time in times):
        return math.inf
    return max(timestamps.datetime_to_ticks(time, "us") for time in times)


def _group_files(
    source: OfflineSource, window: TimeWindow, fragments: Mapping[str, Fragment], rows_per_entry: int
) -> Iterator[FileGroup]:
    """Yield the files in groups, first a group of those whose statistics rule out rows in the window."""
    table = select_files(source.table, fragments.values())
    paths = {fragment.path for fragment in table.get_fragments(filter=_build_window_filter(source, window))}
    skipped = [file for file, fragment in fragments.items() if fragment.path not in paths]
    if skipped:
        yield FileGroup(window, tuple(skipped), select_files(source.table, []), 0)
    files: list[str] = []
    row_count = 0
    for file, fragment in fragments.items():
        if fragment.path not in paths:
            continue
        more = fragment.count_rows()
        if files and row_count + more > rows_per_entry:
            yield _make_group(source, window, fragments, files, row_count)
            files, row_count = [], 0
        files.append(file)
        row_count += more
    if files:
        yield _make_group(source, window, fragments, files, row_count)


def _make_group(
    source: OfflineSource, window: TimeWindow, fragments: Mapping[str, Fragment], files: list[str], row_count: int
) -> FileGroup:
    """Return the group of these files, which all have the same window."""
    return FileGroup(window, tuple(files), select_files(source.table, [fragments[file] for file in files]), row_count)


def _build_window_filter(source: OfflineSource, window: TimeWindow) -> pyarrow.dataset.Expression:
    """Return the filter for rows of the encoder version whose event time is in the window, bounds included."""
    return versions.window_filter(
        source.table, source.event_timestamp, window.start, window.end, encoder_version=source.encoder_version
    )


def _read_blocks(source: OfflineSource, group: FileGroup, newest: NewestRows) -> Iterator[pa.Table]:
    """Yield the rows to write of a group, with the column names that `Packer` expects."""
    where = build_row_filter(source, group.window)
    order = group.table.to_table(columns=newest.columns, filter=where)
    positions = newest.select(order)
    table_columns = list(dict.fromkeys(source.columns.values()))
    if len(positions) == len(order):  # nothing to leave out: a plain scan is faster
        blocks = key_ranges.read_blocks(group.table, table_columns, BLOCK_ROWS, where=where)
    else:
        batches = take.take_batches(group.table, positions, table_columns, where=where) if len(positions) else ()
        blocks = key_ranges.concat_batches(batches, BLOCK_ROWS)
    for block in blocks:
        yield source.rename_columns(block)


def _pack_and_send(
    blocks: Iterable[pa.Table],
    pack: Callable[[pa.Table], Packed],
    send: Callable[[list[bytes], list[bytes]], Future[object]],
) -> Iterator[int]:
    """Yield the number of rows of each block once the store has it; the next block is packed meanwhile."""
    pending: tuple[Future[object], int] | None = None
    for block in blocks:
        keys, rows = pack(block)
        if pending is not None:
            pending[0].result()
            yield pending[1]
        pending = send(keys, rows), len(block)
    if pending is not None:
        pending[0].result()
        yield pending[1]
