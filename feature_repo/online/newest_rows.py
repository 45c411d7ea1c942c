"""The newest row of each entity among the groups of files of one run, so that older versions are not written."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.offline import asof
from feature_repo.offline.versions import newest_positions

MAX_ENTITIES = 2_000_000
"""Entities whose newest row is remembered from group to group, at most: about 100 bytes each. With more, versions that
are in different groups are all written; the store keeps the newest."""


class NewestRows:
    """Remembers the newest version of each entity that a run has seen.

    It saves most if groups come with the latest event times first.
    """

    def __init__(self, keys: Sequence[str], event_timestamp: str, created_timestamp: str | None) -> None:
        """Start without any entity.

        Args:
            keys: names of the columns with the join keys; none for a view of one entity.
            event_timestamp: name of the column with the event timestamp.
            created_timestamp: name of the column with the created timestamp; None if there is none.
        """
        self._keys = tuple(keys)
        self._event_timestamp = event_timestamp
        self._created_timestamp = created_timestamp
        self._newest: pa.Table | None = None
        self._is_full = False

    @property
    def columns(self) -> list[str]:
        """The columns that `select` needs, each once."""
        created = [self._created_timestamp] if self._created_timestamp else []
        return list(dict.fromkeys([*self._keys, self._event_timestamp, *created]))

    def select(self, rows: pa.Table) -> NDArray[np.int64]:
        """Return the positions of the rows to write, ascending: those newer than all of their entity seen so far.

        Of rows of one entity the one with the latest event timestamp is taken; ties go to the latest created timestamp,
        then to rows of earlier calls, then to the last position. Rows with a null key or event timestamp are left out.

        Args:
            rows: rows of a group, with `columns`.
        """
        order = rows.select(self.columns)
        if self._newest is not None:
            order = pa.concat_tables([order, self._newest])
        versions = asof.index_versions(
            [order[key] for key in self._keys],
            order[self._event_timestamp],
            order[self._created_timestamp] if self._created_timestamp else None,
        )
        newest = newest_positions(versions)
        self._is_full = self._is_full or len(newest) > MAX_ENTITIES
        self._newest = None if self._is_full else order.take(pa.array(newest)).combine_chunks()
        return newest[newest < rows.num_rows]
