"""The offline rows of some online keys, and whether and since when each row is online.

The online store's catalog does not record Feast's field mappings. So a view can be checked only if its table has the
view's name and its columns have the features' names, as in this repository.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo.arrow import take, timestamps
from feature_repo.location import Location
from feature_repo.offline import delta, delta_files, key_ranges, rewritten_files
from feature_repo.online import entity_keys
from feature_repo.online.catalog import View
from feature_repo.online.materialization_log import MaterializationState, read_state
from feature_repo.online.materialize import identify_file
from feature_repo.online.table import OnlineTable
from feature_repo.schema import CREATED_TIMESTAMP, ENCODER_TABLES, ENCODER_VERSION, EVENT_TIMESTAMP

BLOCK_ROWS = 65_536
Int64 = NDArray[np.int64]
ALL_TIMES = (int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max))
NO_TIME = (1, 0)


def read_materialization(online: OnlineTable, view: str, path: Location) -> MaterializationState | None:
    """Return the materialization log of a view, with the files that compactions and deletions wrote since.

    Args:
        online: the online table.
        view: the view's name in the store.
        path: location of the view's Delta table, which need not exist.

    Raises:
        UnavailableError: the online store or the bucket does not answer.
        CorruptDataError: the log of the Delta table cannot be read.
    """
    state = read_state(online, view)
    if state is None or not state.files or not delta.exists(path):
        return state
    return follow_rewrites(state, path, delta_files.list_files(delta.open_table(path)))


def follow_rewrites(state: MaterializationState, path: Location, files: Collection[str]) -> MaterializationState:
    """Return a materialization log with those of a table's files that compactions and deletions wrote since.

    Args:
        state: the log.
        path: location of the Delta table.
        files: the table's files, relative to `path`.

    Raises:
        UnavailableError: the bucket does not answer.
        CorruptDataError: the log of the Delta table cannot be read.
    """
    return state.with_rewritten(rewritten_files.find_origins(path, files, state.files))


@dataclass(frozen=True)
class MaterializedRows:
    """Which rows of one table are online, and since when. The materialization log records this for each file.

    A row is online if the log has its file and the row's event timestamp is in the file's window. Timestamps are
    microseconds since 1970 UTC.
    """

    ends: Int64
    """[files], position of the row after a file's last row. Files are in the table's order."""
    start_us: Int64
    """[files], earliest event timestamp that is online, inclusive. Later than `end_us` if no row of the file is."""
    end_us: Int64
    """[files], latest event timestamp that is online, inclusive."""
    online_since_us: Int64
    """[files], when the file came online; timestamps.NULL_TICKS if the log has no time."""

    @classmethod
    def from_state(
        cls, table: pyarrow.dataset.FileSystemDataset, state: MaterializationState | None
    ) -> "MaterializedRows":
        """Read what the log says of a table.

        Args:
            table: the offline table.
            state: the view's materialization log. A file that it lacks is not online. Without a log (None), every row
                counts as online since an unknown time.
        """
        rows, windows, since = [], [], []
        for fragment in table.get_fragments():
            name = identify_file(fragment)
            window = None if state is None else state.files.get(name)
            timestamp = None if state is None else state.online_since.get(name)
            rows.append(fragment.count_rows())
            since.append(timestamps.NULL_TICKS if timestamp is None else timestamps.datetime_to_ticks(timestamp, "us"))
            if state is None:
                windows.append(ALL_TIMES)
            elif window is None:
                windows.append(NO_TIME)
            else:
                windows.append(
                    (timestamps.datetime_to_ticks(window.start, "us"), timestamps.datetime_to_ticks(window.end, "us"))
                )
        bounds = np.array(windows, np.int64).reshape(-1, 2)
        return cls(np.cumsum(rows, dtype=np.int64), bounds[:, 0], bounds[:, 1], np.array(since, np.int64))

    def is_online(self, row_index: Int64, event_us: Int64) -> NDArray[np.bool_]:
        """Return whether rows are online, as bool [n].

        Args:
            row_index: [n], the rows' positions in the table, in any order.
            event_us: [n], their event timestamps.
        """
        file = self._find_files(row_index)
        return (self.start_us[file] <= event_us) & (event_us <= self.end_us[file])

    def find_online_since(self, row_index: Int64) -> Int64:
        """Return when the files of rows came online: [n], NULL_TICKS of feature_repo.arrow.timestamps if unknown.

        Args:
            row_index: [n], the rows' positions in the table, in any order.
        """
        return self.online_since_us[self._find_files(row_index)]

    def _find_files(self, row_index: Int64) -> NDArray[np.intp]:
        return np.searchsorted(self.ends, row_index, side="right")


@dataclass(frozen=True)
class EntityVersions:
    """The n offline rows of some requested keys. Timestamps are microseconds since 1970 UTC.

    `ViewHistory.read_versions` returns them in the table's order.
    """

    key_index: Int64
    """[n], position of the row's key among the requested keys."""
    event_us: Int64
    """[n], the row's event timestamp."""
    created_us: Int64
    """[n], the row's created timestamp; the smallest int64 where it is null."""
    online: NDArray[np.bool_]
    """[n], whether the materialization log says that the row, or a newer one in its place, was written online."""
    row_index: Int64
    """[n], position of the row in the table."""

    def repeat_for(self, requested: Int64) -> "EntityVersions":
        """Return the rows of each of m keys, key by key. The rows of a key that is given twice are there twice.

        Args:
            requested: [m], values of `key_index`; they may repeat. One without rows has none in the result.

        Returns:
            The rows, with `key_index` now the position in `requested`.
        """
        order = np.argsort(self.key_index, kind="stable")
        first, last = (np.searchsorted(self.key_index[order], requested, side) for side in ("left", "right"))
        counts = last - first
        within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        rows = order[np.repeat(first, counts) + within]
        key_index = np.repeat(np.arange(len(requested)), counts)
        return EntityVersions(
            key_index, self.event_us[rows], self.created_us[rows], self.online[rows], self.row_index[rows]
        )

    def find_newest(self, selected: NDArray[np.bool_], keys: int) -> Int64:
        """Return [keys], the newest selected row of each key as an index into this object's arrays; -1 if none.

        Rows are ordered by event timestamp, then created timestamp. Of equal rows the last one is returned.

        Args:
            selected: [n], whether to look at the row.
            keys: number of requested keys; each value of `key_index` is lower.
        """
        rows = np.flatnonzero(selected)
        rows = rows[np.lexsort((self.created_us[rows], self.event_us[rows], self.key_index[rows]))]
        newest = np.full(keys, -1)
        newest[self.key_index[rows]] = rows
        return newest

    def find_same(self, event_us: Int64, created_us: Int64) -> list[list[int]]:
        """Return for each key its rows with given timestamps, as indices into this object's arrays, ascending.

        Args:
            event_us: [keys], the event timestamp to look for.
            created_us: [keys], the created timestamp to look for.

        Returns:
            One list for each key, empty if no row has both timestamps.
        """
        rows_of_key: list[list[int]] = [[] for _ in event_us]
        is_same = (self.event_us == event_us[self.key_index]) & (self.created_us == created_us[self.key_index])
        for row in np.flatnonzero(is_same).tolist():
            rows_of_key[self.key_index[row]].append(row)
        return rows_of_key

    def timestamps_of(self, row: int) -> tuple[int, int] | None:
        """Return the event and created timestamps of one row, in microseconds since 1970 UTC.

        Args:
            row: index into this object's arrays, such as `find_newest` returns; -1 gives None.
        """
        return None if row < 0 else (int(self.event_us[row]), int(self.created_us[row]))


@dataclass(frozen=True)
class ViewHistory:
    """A view's offline table, and how its rows map to online keys."""

    view: View
    """The view in the online store's catalog."""
    prefix: bytes
    """The first bytes of every online key of the view."""
    table: pyarrow.dataset.Dataset
    """The newest version of the table when `open` was called."""
    encoder_version: str | None = None
    """The encoder version of the rows that are online; None: all rows are."""

    @classmethod
    def open(
        cls, online: OnlineTable, view: View, path: Location, encoder_version: str | None = None
    ) -> "ViewHistory | str":
        """Return the history of a view; a string with the reason if the view cannot be checked.

        A view cannot be checked if its table does not exist or lacks one of the view's columns, or if the view has maps
        or structs, which only Feast packs.

        Args:
            online: the online table; its project is part of every key.
            view: the view, from the online store's catalog.
            path: folder of the view's Delta table.
            encoder_version: the version of the online rows, if the table is derived from an encoder; None: all.
        """
        if not delta.exists(path):
            return f"there is no table `{path.name}` yet"
        table = delta.open_dataset(path)
        required = {*dict(view.join_keys), *view.layout.fields_by_name, EVENT_TIMESTAMP, CREATED_TIMESTAMP}
        missing = sorted(required - set(table.schema.names))
        if missing:
            return f"table `{path.name}` has no column {', '.join(missing)}"
        messages = [field.name for field in view.layout.fields if field.is_message]
        if messages:
            return f"{', '.join(messages)}: only Feast packs maps and structs"
        version = encoder_version if path.name in ENCODER_TABLES else None
        return cls(view, entity_keys.make_prefix(online.project, view.name), table, version)

    def read_keys(self) -> Iterator[list[bytes]]:
        """Yield the online keys of the table's rows in the table's order, in one list for each block of rows.

        A key is there once for each of its rows. Rows without an id or an event timestamp are skipped.
        """
        for block in self._read_blocks([]):
            yield self._make_keys(block.filter(self._is_usable(block)))

    def read_versions(self, keys: list[bytes], state: MaterializationState | None) -> EntityVersions:
        """Return all rows of these keys, in the table's order. Rows without an event timestamp are skipped.

        Args:
            keys: distinct online keys; `key_index` is the position in this list. A key without rows has none in the
                result.
            state: the view's materialization log. Without a log (None), every row counts as online.
        """
        key_positions = {key: i for i, key in enumerate(keys)}
        parts: list[tuple[Int64, ...]] = [(np.empty(0, np.int64),) * 4]
        offset = 0
        for block in self._read_blocks([CREATED_TIMESTAMP]):
            usable = np.flatnonzero(np.asarray(self._is_usable(block)))
            positions = [key_positions.get(key, -1) for key in self._make_keys(block.take(pa.array(usable)))]
            key_index = np.array(positions, np.int64)
            requested = usable[key_index >= 0]
            rows = block.take(pa.array(requested))
            ticks = (timestamps.to_ticks(rows[name], "us") for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
            parts.append((key_index[key_index >= 0], *ticks, requested + offset))
            offset += len(block)
        key_index, event_us, created_us, row_index = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        online = MaterializedRows.from_state(self.table, state).is_online(row_index, event_us)
        return EntityVersions(key_index, event_us, created_us, online, row_index)

    def read_rows(self, row_index: Int64) -> pa.Table:
        """Return the view's features and both timestamps of some rows.

        Args:
            row_index: [n], the rows' positions in the table, in any order; a position may repeat.

        Returns:
            n rows in the order of `row_index`. Columns: the features in the order of the view's layout, then
            `event_timestamp` and `created_timestamp`; no ids.
        """
        ascending, order = np.unique(row_index, return_inverse=True)
        columns = [*self.view.layout.fields_by_name, EVENT_TIMESTAMP, CREATED_TIMESTAMP]
        return take.take_rows(self.table, ascending, columns).take(pa.array(order))

    def _read_blocks(self, more: list[str]) -> Iterator[pa.Table]:
        version = [] if self.encoder_version is None else [ENCODER_VERSION]
        columns = [*dict(self.view.join_keys), EVENT_TIMESTAMP, *version, *more]
        return key_ranges.read_blocks(self.table, columns, BLOCK_ROWS)

    def _is_usable(self, block: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Whether each row has all ids and an event timestamp, and is of the encoder version that is online."""
        usable = np.asarray(block[EVENT_TIMESTAMP].is_valid())
        if self.encoder_version is not None:
            usable = usable & np.asarray(pc.equal(block[ENCODER_VERSION], self.encoder_version).fill_null(False))
        for name, _ in self.view.join_keys:
            usable = usable & np.asarray(block[name].is_valid())
        return pa.array(usable)

    def _make_keys(self, block: pa.Table) -> list[bytes]:
        values = [entity_keys.from_arrow(block[name]) for name, _ in self.view.join_keys]
        return entity_keys.make_keys(self.prefix, values or [[""] * len(block)]) if len(block) else []
