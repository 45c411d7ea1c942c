"""The rows that a derived table has, and which of them are up to date.

Of the rows of one entity, event time and encoder version the one created last is served and joined. It is up to date
if it is of the wanted model version and was made from the same inputs (input_digest.py). Rows of other encoder versions
do not count: they stay, so that returning to one writes only what has changed meanwhile. A row without a digest, as
version 0.2 and earlier wrote them, counts as made from the same inputs, because nothing says otherwise: only
`--recompute` replaces it.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.location import Location
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, ENCODER_VERSION, EVENT_TIMESTAMP, INPUT_DIGEST, PRODUCT_ID, TIMESTAMP
from producers.input_digest import Digests

Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class StoredRows:
    """The row created last of each entity and event time: m rows, sorted by both.

    An entity is given by its number, an index into the ids that `read` got.
    """

    timestamps_us: Int64
    """Distinct event timestamps, ascending, microseconds since 1970 UTC."""
    keys: Int64
    """[m], ascending: entity * len(timestamps_us) + position in `timestamps_us`."""
    is_of_version: Bools
    """[m], whether the row is of the wanted model version."""
    digest: Digests
    """[m], 0 where `has_digest` is False."""
    has_digest: Bools
    """[m], False for rows that version 0.2 or earlier wrote."""
    count: Int64
    """[m], the values of `count_column`; zeros without one."""

    @staticmethod
    def read(
        path: Location,
        ids: pa.Array,
        *,
        version_column: str,
        version: str,
        encoder_version: str | None,
        entity: str = PRODUCT_ID,
        count_column: str | None = None,
        since_us: int | None = None,
    ) -> "StoredRows":
        """Read keys, versions and digests of a table; no rows if there is no table yet.

        Args:
            path: the table's folder.
            ids: the ids of the entities, each once; rows of others are left out.
            version_column: the column with the model version.
            version: the wanted model version.
            encoder_version: only rows of this encoder version are read; None for a table without encoder versions.
            entity: the column with the ids.
            count_column: a column of integers that `find_current` compares if a row has no digest.
            since_us: only rows from this event timestamp on are read, microseconds since 1970 UTC; None reads all.
        """
        empty = np.empty(0, np.int64)
        if not delta.exists(path):
            return StoredRows(empty, empty, empty.astype(bool), empty.view(np.uint64), empty.astype(bool), empty)
        dataset = delta.open_dataset(path, [entity, EVENT_TIMESTAMP, CREATED_TIMESTAMP, version_column])
        names = [entity, EVENT_TIMESTAMP, CREATED_TIMESTAMP, *[INPUT_DIGEST] * (INPUT_DIGEST in dataset.schema.names)]
        columns = {name: pc.field(name) for name in [*names, *([count_column] if count_column else [])]}
        columns["is_of_version"] = pc.field(version_column) == version
        where = None if encoder_version is None else pc.field(ENCODER_VERSION) == encoder_version
        if since_us is not None:
            since = pc.field(EVENT_TIMESTAMP) >= pc.scalar(since_us).cast(TIMESTAMP)
            where = since if where is None else where & since
        rows = dataset.to_table(columns=columns, filter=where)
        number = pc.index_in(rows[entity], value_set=ids).fill_null(-1).to_numpy().astype(np.int64)
        event_us, created_us = (rows[name].cast(pa.int64()).to_numpy() for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
        timestamps_us, position = np.unique(event_us, return_inverse=True)
        keys = number * len(timestamps_us) + position
        order = np.argsort(keys, kind="stable")
        if (np.diff(keys[order]) == 0).any():
            order = np.lexsort((created_us, keys))
        is_last = np.append(np.diff(keys[order]) != 0, True)[: len(order)]
        order = order[is_last & (number[order] >= 0)]
        digest = rows[INPUT_DIGEST] if INPUT_DIGEST in rows.column_names else pa.chunked_array([pa.nulls(len(rows))])
        return StoredRows(
            timestamps_us,
            keys[order],
            rows["is_of_version"].fill_null(False).to_numpy()[order],
            digest.cast(pa.int64()).fill_null(0).to_numpy().view(np.uint64)[order],
            digest.is_valid().to_numpy()[order],
            np.zeros(len(order), np.int64) if count_column is None else rows[count_column].to_numpy()[order],
        )

    def find(self, entity: Int64, event_us: Int64) -> Int64:
        """Return the stored row of each of n keys, an index from 0 to m - 1; -1 where there is none.

        Args:
            entity: [n], numbers of entities.
            event_us: [n], event timestamps, microseconds since 1970 UTC.
        """
        if not len(self.keys):
            return np.full(len(entity), -1)
        position = np.minimum(np.searchsorted(self.timestamps_us, event_us), len(self.timestamps_us) - 1)
        keys = entity * len(self.timestamps_us) + position
        row = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((self.timestamps_us[position] == event_us) & (self.keys[row] == keys), row, -1)

    def is_current(self, row: Int64, digests: Digests, counts: Int64 | None = None) -> Bools:
        """Return whether stored rows are of the wanted version and made from the same inputs, bool [n].

        Args:
            row: [n], from `find`; -1 gives False.
            digests: [n], of the inputs that the rows would be made from now.
            counts: [n], what the rows would have in `count_column`, if it was read. A row without a digest is current
                if it has this value.
        """
        if not len(self.keys):
            return np.zeros(len(row), bool)
        is_same = np.where(self.has_digest[row], self.digest[row] == digests, True)
        if counts is not None:
            is_same &= self.has_digest[row] | (self.count[row] == counts)
        return (row >= 0) & self.is_of_version[row] & is_same

    def list_keys(self) -> tuple[Int64, Int64]:
        """Return the entities and the event timestamps of all rows, each [m]."""
        entity, position = np.divmod(self.keys, max(1, len(self.timestamps_us)))
        return entity, self.timestamps_us[position]


def find_outdated(
    path: Location,
    keys: pa.Table,
    digests: Digests,
    *,
    version_column: str,
    version: str,
    encoder_version: str | None,
    recompute: bool = False,
) -> Int64:
    """Return which product versions have no row in a table that is up to date: positions from 0, ascending.

    Args:
        path: the table's folder; it need not exist.
        keys: n distinct product ids and event timestamps.
        digests: [n], of the inputs of each row.
        version_column: the table's column with the model version.
        version: the wanted model version.
        encoder_version: only rows of this encoder version count; None for a table without encoder versions.
        recompute: return all rows.
    """
    if recompute:
        return np.arange(len(keys))
    ids = keys[PRODUCT_ID].combine_chunks().dictionary_encode()
    stored = StoredRows.read(
        path, ids.dictionary, version_column=version_column, version=version, encoder_version=encoder_version
    )
    row = stored.find(ids.indices.to_numpy().astype(np.int64), keys[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy())
    return np.flatnonzero(~stored.is_current(row, digests))
