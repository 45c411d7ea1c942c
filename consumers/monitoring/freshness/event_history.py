"""The offline rows of some online keys, and whether materialization says that each is online.

A view's table is called like the view and its columns like its features: so it is in this repository, and the record
of an online store says nothing of field mappings. A view of which that is not true is not judged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
from numpy.typing import NDArray

from consumers.monitoring.freshness.taken import Taken
from feature_repo.arrow import take, timestamps
from feature_repo.offline import delta, key_ranges
from feature_repo.online import entity_keys
from feature_repo.online.catalog import View
from feature_repo.online.materialization_log import MaterializationState
from feature_repo.online.table import OnlineTable
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP

BLOCK_ROWS = 65_536
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Versions:
    """The offline rows of some keys, in the table's order."""

    key: Int64
    """[n], which of the keys asked for."""
    event: Int64
    """[n], microseconds since 1970 UTC."""
    created: Int64
    """[n], likewise; the smallest int64 where it is null."""
    online: NDArray[np.bool_]
    """[n], whether a run of materialization says that it put the row online, or a newer one in its place."""
    position: Int64
    """[n], of the row in the table."""

    def of_each(self, asked: Int64) -> "Versions":
        """The rows of the keys `asked` [m], which may repeat; `key` is then the place in `asked`."""
        order = np.argsort(self.key, kind="stable")
        first, last = (np.searchsorted(self.key[order], asked, side) for side in ("left", "right"))
        counts = last - first
        within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        place = order[np.repeat(first, counts) + within]
        key = np.repeat(np.arange(len(asked)), counts)
        return Versions(key, self.event[place], self.created[place], self.online[place], self.position[place])

    def newest(self, counts: NDArray[np.bool_], keys: int) -> Int64:
        """[keys], of each key the place of its newest row among those that count, the last of equals; -1 if none."""
        place = np.flatnonzero(counts)
        place = place[np.lexsort((self.created[place], self.event[place], self.key[place]))]
        newest = np.full(keys, -1)
        newest[self.key[place]] = place
        return newest

    def same(self, event: Int64, created: Int64) -> list[list[int]]:
        """Of each key the places of its rows with these times [keys]."""
        found: list[list[int]] = [[] for _ in event]
        for place in np.flatnonzero((self.event == event[self.key]) & (self.created == created[self.key])).tolist():
            found[self.key[place]].append(place)
        return found

    def stamps(self, place: int) -> tuple[int, int] | None:
        """Event and created timestamp of a row; None at -1."""
        return None if place < 0 else (int(self.event[place]), int(self.created[place]))


@dataclass(frozen=True)
class ViewHistory:
    """A view's offline table beside what the online store knows of the view."""

    view: View
    prefix: bytes
    table: pyarrow.dataset.Dataset

    @staticmethod
    def open(online: OnlineTable, view: View, path: Path) -> "ViewHistory | str":
        """The history, or why the view cannot be judged."""
        if not delta.exists(path):
            return f"there is no table `{path.name}` yet"
        table = delta.open_dataset(path)
        needed = {*dict(view.join_keys), *view.layout.fields_by_name, EVENT_TIMESTAMP, CREATED_TIMESTAMP}
        missing = sorted(needed - set(table.schema.names))
        if missing:
            return f"table `{path.name}` has no column {', '.join(missing)}"
        computed = [field.name for field in view.layout.fields if field.is_message]
        if computed:
            return f"{', '.join(computed)}: maps and structs are packed by Feast alone"
        return ViewHistory(view, entity_keys.make_prefix(online.project, view.name), table)

    def keys(self) -> Iterator[list[bytes]]:
        """The online keys of the table's rows, block by block; rows without an id or a time have none."""
        for block in self._blocks([]):
            yield self._keys_of(block.filter(self._usable(block)))

    def versions(self, keys: list[bytes], written: MaterializationState | None) -> Versions:
        """All rows of these keys.

        Args:
            written: what the online store says has been written; None: nobody knows, and every row counts as online.
        """
        number = {key: i for i, key in enumerate(keys)}
        parts: list[tuple[Int64, ...]] = [(np.empty(0, np.int64),) * 4]
        offset = 0
        for block in self._blocks([CREATED_TIMESTAMP]):
            usable = np.flatnonzero(np.asarray(self._usable(block)))
            found = [number.get(key, -1) for key in self._keys_of(block.take(pa.array(usable)))]
            key = np.array(found, np.int64)
            mine = usable[key >= 0]
            taken = block.take(pa.array(mine))
            stamps = (timestamps.to_ticks(taken[name], "us") for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
            parts.append((key[key >= 0], *stamps, mine + offset))
            offset += len(block)
        key, event, created_at, position = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        online = Taken.of(self.table, written).online(position, event)
        return Versions(key, event, created_at, online, position)

    def rows(self, position: Int64) -> pa.Table:
        """The rows at these positions of the table, in the order in which they are asked for."""
        ascending, place = np.unique(position, return_inverse=True)
        columns = [*self.view.layout.fields_by_name, EVENT_TIMESTAMP, CREATED_TIMESTAMP]
        return take.take_rows(self.table, ascending, columns).take(pa.array(place))

    def _blocks(self, more: list[str]) -> Iterator[pa.Table]:
        return key_ranges.read_blocks(self.table, [*dict(self.view.join_keys), EVENT_TIMESTAMP, *more], BLOCK_ROWS)

    def _usable(self, block: pa.Table) -> pa.ChunkedArray | pa.Array:
        usable = np.asarray(block[EVENT_TIMESTAMP].is_valid())
        for name, _ in self.view.join_keys:
            usable = usable & np.asarray(block[name].is_valid())
        return pa.array(usable)

    def _keys_of(self, block: pa.Table) -> list[bytes]:
        values = [entity_keys.from_arrow(block[name]) for name, _ in self.view.join_keys]
        return entity_keys.make_keys(self.prefix, values or [[""] * len(block)]) if len(block) else []
