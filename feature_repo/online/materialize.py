"""From an offline table to an online store, a block of rows at a time: memory does not grow with the table.

Rows go in the table's order, the older and the newer ones of an entity as they come: the store keeps the newest. While
the store takes one block, the next one is read and packed. Once a group of files is online, the ledger (written.py)
says so; a run that was killed is resumed behind the last such group, and until then writes some rows twice, which
changes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from pyarrow.fs import SubTreeFileSystem

from feature_repo.arrow import columns, timestamps
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.errors import InvalidInputError
from feature_repo.offline import key_ranges, versions
from feature_repo.online import entity_keys
from feature_repo.online.catalog import View
from feature_repo.online.materialization_log import MaterializationLog, TimeWindow
from feature_repo.online.table import OnlineTable

BLOCK_ROWS = 16_384
ROWS_PER_ENTRY = 200_000
"""Rows written between two entries in the ledger, a file at least: the files of `delta.append` hold 100 MB at most."""

Fragment: TypeAlias = pyarrow.dataset.ParquetFileFragment
Packed = tuple[list[bytes], list[bytes]]


@dataclass(frozen=True)
class OfflineSource:
    """Where rows come from."""

    table: pyarrow.dataset.FileSystemDataset
    columns: Mapping[str, str]
    """What the rows' columns are to be called -> column of the table."""
    keys: Sequence[str]
    """Columns of the table that say which entity; rows in which one is null are left out."""
    event_timestamp: str
    """Column of the table; rows in which it is null are left out."""
    created_timestamp: str | None = None
    """Column of the table."""

    def named(self, rows: pa.Table) -> pa.Table:
        """Rows of the table under the names that they are to have."""
        return pa.table({name: rows[column] for name, column in self.columns.items()})


@dataclass(frozen=True)
class FileGroup:
    """Files of which the same window is to be written."""

    window: TimeWindow
    files: tuple[str, ...]
    table: pyarrow.dataset.FileSystemDataset
    rows: int
    """In the files, be they in the window or not."""


@dataclass(frozen=True)
class Packer:
    """How rows of one view are packed."""

    view: View
    """As `StoreCatalog.register_view` gave it back."""
    event_timestamp: str
    """Column of the rows."""
    created_timestamp: str | None = None
    to_column: Callable[[Field, pa.ChunkedArray], Column] = columns.from_arrow
    """An Arrow column as the column of a feature."""

    def pack(self, online: OnlineTable, rows: pa.Table) -> tuple[list[bytes], list[bytes]]:
        """Keys and packed rows as the store takes them: of each entity the newest row alone.

        Raises:
            VitrineError: a column is missing or of another type than its feature.
        """
        fields, join_keys = self.view.layout.fields, [name for name, _ in self.view.join_keys]
        missing = {*(field.name for field in fields), *join_keys, self.event_timestamp} - set(rows.column_names)
        if missing:
            raise InvalidInputError(
                f"view `{self.view.name}`: no column {', '.join(sorted(missing))} in the rows; "
                f"they have {rows.column_names}"
            )
        return online.pack(
            self.view,
            online.keys(self.view, {name: entity_keys.from_arrow(rows[name]) for name in join_keys}, rows.num_rows),
            {field.name: self.to_column(field, rows[field.name]) for field in fields},
            timestamps.to_ticks(rows[self.event_timestamp], "us"),
            timestamps.to_ticks(rows[self.created_timestamp], "us") if self.created_timestamp else None,
        )


Write: TypeAlias = Callable[[OfflineSource, FileGroup], Iterator[int]]
"""Puts the newest rows of a group into the store, older ones as it pleases, and says how many it has looked through:
when it has said so of the last of them, all are there to stay."""


def identify_file(fragment: Fragment) -> str:
    """What the ledger calls a file: its path, and outside of Delta tables also when it was last changed.

    A Delta table's files never change, but a copy of the table brings them other times.
    """
    if isinstance(fragment.filesystem, SubTreeFileSystem):  # as `delta.files_of` opens them
        return fragment.path
    changed = fragment.filesystem.get_file_info(fragment.path).mtime_ns
    return f"{fragment.path}@{changed}"


def materialize(
    source: OfflineSource,
    ledger: MaterializationLog,
    window: TimeWindow,
    *,
    write: Write,
    begin: Callable[[int], Callable[[int], object]],
    rows_per_entry: int | None = None,
) -> None:
    """Write what is left of the window.

    Args:
        write: writes a group (`writer`).
        begin: told how many rows there are to look through, it gives whom to tell how many have been.
        rows_per_entry: rows of a group, a file at least; None: ROWS_PER_ENTRY.
    """
    fragments = {identify_file(fragment): fragment for fragment in source.table.get_fragments()}
    groups = _groups_left(source, fragments, ledger, window, rows_per_entry or ROWS_PER_ENTRY)
    looked_through = begin(sum(group.rows for group in groups))
    for group in groups:
        seen = 0
        for rows in write(source, group):
            seen += rows
            looked_through(rows)
        ledger.add(group.files, group.window)
        looked_through(group.rows - seen)
    ledger.finish(list(fragments))


def make_writer(pack: Callable[[pa.Table], Packed], put: Callable[[list[bytes], list[bytes]], object]) -> Write:
    """Writes a group from this process, block by block.

    Args:
        pack: keys and packed rows of a block, whose columns are called as `Source.columns` has it.
        put: takes them into the store; what it has taken is there to stay when it returns.
    """

    def write(source: OfflineSource, group: FileGroup) -> Iterator[int]:
        with ThreadPoolExecutor(1) as sender:
            yield from _taken(_blocks(source, group), pack, lambda keys, rows: sender.submit(put, keys, rows))

    return write


def _groups_left(
    source: OfflineSource,
    fragments: Mapping[str, Fragment],
    ledger: MaterializationLog,
    window: TimeWindow,
    rows_per_entry: int,
) -> list[FileGroup]:
    """What is to be written, in the order in which it is."""
    by_window: dict[TimeWindow, list[str]] = {}
    for file, stretch in ledger.state.find_pending(fragments, window).items():
        by_window.setdefault(stretch, []).append(file)
    return [
        group
        for stretch, files in by_window.items()
        for group in _grouped(source, stretch, {file: fragments[file] for file in files}, rows_per_entry)
    ]


def _grouped(
    source: OfflineSource, window: TimeWindow, fragments: Mapping[str, Fragment], rows_per_entry: int
) -> Iterator[FileGroup]:
    """The files in groups; those that cannot have a row in the window, as their statistics say, are the first."""
    whole = select_files(source.table, fragments.values())
    may = {fragment.path for fragment in whole.get_fragments(filter=_in(source, window))}
    files = [file for file, fragment in fragments.items() if fragment.path not in may]
    rows = 0
    for file, fragment in fragments.items():
        if fragment.path not in may:
            continue
        more = fragment.count_rows()
        if files and (not rows or rows + more > rows_per_entry):
            yield FileGroup(
                window,
                tuple(files),
                select_files(source.table, [fragments[one] for one in files] if rows else []),
                rows,
            )
            files, rows = [], 0
        files.append(file)
        rows += more
    if files:
        yield FileGroup(
            window, tuple(files), select_files(source.table, [fragments[one] for one in files] if rows else []), rows
        )


def select_files(
    table: pyarrow.dataset.FileSystemDataset, fragments: Iterable[Fragment]
) -> pyarrow.dataset.FileSystemDataset:
    """Some files of a table."""
    return pyarrow.dataset.FileSystemDataset(list(fragments), table.schema, table.format, table.filesystem)


def _in(source: OfflineSource, window: TimeWindow) -> pyarrow.dataset.Expression:
    return versions.window_filter(source.table, source.event_timestamp, window.start, window.end)


def build_row_filter(source: OfflineSource, window: TimeWindow) -> pyarrow.dataset.Expression:
    """Which rows are to be written."""
    where = _in(source, window)
    for key in source.keys:
        where &= pc.field(key).is_valid()
    return where


def _blocks(source: OfflineSource, group: FileGroup) -> Iterator[pa.Table]:
    """The rows of a group that have an entity, under the names that they are to have."""
    where = build_row_filter(source, group.window)
    columns = list(dict.fromkeys(source.columns.values()))
    for block in key_ranges.read_blocks(group.table, columns, BLOCK_ROWS, where=where):
        yield source.named(block)


def _taken(
    blocks: Iterable[pa.Table],
    pack: Callable[[pa.Table], Packed],
    send: Callable[[list[bytes], list[bytes]], Future[object]],
) -> Iterator[int]:
    """Rows of each block, once the store has taken it; the next one is packed meanwhile."""
    under_way: tuple[Future[object], int] | None = None
    for block in blocks:
        keys, rows = pack(block)
        if under_way is not None:
            under_way[0].result()
            yield under_way[1]
        under_way = send(keys, rows), len(block)
    if under_way is not None:
        under_way[0].result()
        yield under_way[1]
