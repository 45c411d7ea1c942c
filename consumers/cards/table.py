"""Size, model versions and missing values of a view's table. Only keys, versions and one feature at a time are read."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from numpy.typing import NDArray

from consumers.cards.card import StoredTable
from feature_repo.arrow import take
from feature_repo.location import Location
from feature_repo.offline import asof, delta, production, versions
from feature_repo.offline.delta_files import list_files, open_version
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP

ROWS = 65_536
"""Rows whose values are read at a time."""


class ServedTable:
    """The newest version of a view's table, and the row of each entity that readers get."""

    def __init__(self, path: Location, keys: Sequence[str], now: datetime) -> None:
        """Read the keys and timestamps.

        Args:
            path: the table's folder; it must exist.
            keys: the view's join keys.
            now: later rows do not count, with a time zone.

        Raises:
            NotFoundError: the table has no column of that name.
            CorruptDataError: the table is damaged.
        """
        self.keys = keys
        table = delta.open_table(path)
        self._bytes = sum(list_files(table).values())
        self.dataset = open_version(table, path)
        columns = [*keys, EVENT_TIMESTAMP, CREATED_TIMESTAMP]
        versions.require_columns(self.dataset, columns)
        self._order = self.dataset.to_table(columns=columns)
        self.positions = self._find_served_rows(path, now)

    @property
    def columns(self) -> list[str]:
        """Names of the table's columns."""
        return list(self.dataset.schema.names)

    def measure_size(self) -> StoredTable:
        """Return the number of rows and entities, and the bytes of the current files."""
        return StoredTable(len(self._order), len(self.positions), self._bytes)

    def read_ids(self) -> list[str]:
        """Return the id of each entity as text; empty if the view has several join keys or none."""
        if len(self.keys) != 1:
            return []
        return self._order[self.keys[0]].take(pa.array(self.positions)).cast(pa.string()).to_pylist()

    def count_versions(self, column: str) -> Iterator[tuple[str, int, bool]]:
        """Yield each version in a column, its number of rows, and whether readers get one of them; frequent ones first.

        Rows without a version are left out.
        """
        values = self.dataset.to_table(columns=[column])[column]
        served = set(pc.unique(values.take(pa.array(self.positions))).to_pylist())
        counts = pc.value_counts(values.drop_null()).to_pylist()
        for entry in sorted(counts, key=lambda entry: (-entry["counts"], entry["values"])):
            yield entry["values"], entry["counts"], entry["values"] in served

    def measure_missing(self, features: Sequence[str]) -> Mapping[str, float]:
        """Return the share of entities whose feature is null or NaN, by feature; without entities, nothing.

        A feature that the table lacks is left out.
        """
        shares = {}
        for name in features:
            if name in self.columns and len(self.positions):
                chunks = take.take_chunks(self.dataset, self.positions, [name], ROWS)
                missing = sum(_count_missing(chunk[name]) for chunk in chunks)
                shares[name] = missing / len(self.positions)
        return shares

    def _find_served_rows(self, path: Location, now: datetime) -> NDArray[np.int64]:
        """Return the position of each entity's newest row of the version in production, ascending."""
        kind = self._order.schema.field(EVENT_TIMESTAMP).type
        is_served = pc.less_equal(self._order[EVENT_TIMESTAMP], pa.scalar(now, kind)).fill_null(False)
        in_production = production.rows_filter(path)
        if in_production is not None:
            of_version = self.dataset.to_table(columns={"served": in_production})["served"]
            is_served = pc.and_(is_served, of_version.fill_null(False))
        index = asof.index_versions(
            [self._order[key] for key in self.keys],
            self._order[EVENT_TIMESTAMP],
            self._order[CREATED_TIMESTAMP],
            is_selected=is_served.to_numpy(),
        )
        return versions.newest_positions(index)


def _count_missing(column: pa.ChunkedArray) -> int:
    """Return how many values are null or NaN; a list is NaN if its first element is."""
    missing = pc.is_null(column, nan_is_null=not pa.types.is_nested(column.type))
    if pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type):
        has_first = pc.fill_null(pc.greater(pc.list_value_length(column), 0), False)
        first = pc.list_element(pc.if_else(has_first, column, pa.scalar([0.0], column.type)), 0)
        missing = pc.or_(missing, pc.is_nan(first))
    return int(pc.sum(missing).as_py() or 0)
