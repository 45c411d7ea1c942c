"""What materialization has taken of a table, row by row, as the ledger beside the online rows says it by file."""

from dataclasses import dataclass

import numpy as np
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo.arrow import timestamps
from feature_repo.online.materialization_log import MaterializationState
from feature_repo.online.materialize import identify_file

Int64 = NDArray[np.int64]
EVERYTHING = (int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max))
NOTHING = (1, 0)


@dataclass(frozen=True)
class Taken:
    """Of each file of a table, in its order, the event times that are online, and since when."""

    ends: Int64
    """[files], position of the row after a file's last."""
    start: Int64
    """[files], microseconds since 1970 UTC, inclusive; likewise `until`."""
    until: Int64
    since: Int64
    """[files], when it came online; timestamps.NULL_TICKS where nobody wrote that down."""

    @staticmethod
    def of(table: pyarrow.dataset.FileSystemDataset, ledger: MaterializationState | None) -> "Taken":
        """What the ledger says of the table; with none, every row counts as taken, nobody knows when."""
        rows, stretches, since = [], [], []
        for fragment in table.get_fragments():
            name = identify_file(fragment)
            window = None if ledger is None else ledger.files.get(name)
            moment = None if ledger is None else ledger.online_since.get(name)
            rows.append(fragment.count_rows())
            since.append(timestamps.NULL_TICKS if moment is None else timestamps.datetime_to_ticks(moment, "us"))
            if ledger is None:
                stretches.append(EVERYTHING)
            else:
                stretches.append(
                    NOTHING
                    if window is None
                    else (
                        timestamps.datetime_to_ticks(window.start, "us"),
                        timestamps.datetime_to_ticks(window.end, "us"),
                    )
                )
        bounds = np.array(stretches, np.int64).reshape(-1, 2)
        return Taken(np.cumsum(rows, dtype=np.int64), bounds[:, 0], bounds[:, 1], np.array(since, np.int64))

    def online(self, position: Int64, event: Int64) -> NDArray[np.bool_]:
        """[n], whether rows at these positions of the table, of these event times, are online."""
        file = self._file(position)
        return (self.start[file] <= event) & (event <= self.until[file])

    def moment(self, position: Int64) -> Int64:
        """[n], when the rows' files came online; timestamps.NULL_TICKS where unknown."""
        return self.since[self._file(position)]

    def _file(self, position: Int64) -> NDArray[np.intp]:
        return np.searchsorted(self.ends, position, side="right")
