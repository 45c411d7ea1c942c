"""What was read of one view for n rows of a request, of which many may ask for the same entity (a user beside 500
candidates): each entity is read and kept once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.online.decode import DecodedRows, Status


@dataclass(frozen=True)
class ViewRows:
    """Rows of one view."""

    rows: DecodedRows
    """Of each distinct entity."""
    place: NDArray[np.int64] | None
    """[n], which of them each row of the request asks for; None if they are the same."""
    names: Mapping[str, str]
    """The view's features, by their names in the answer."""

    def column(self, name: str) -> Column:
        """A feature, of each distinct entity."""
        return self.rows.columns[self.names[name]]

    def spread(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array of the distinct entities, for the rows of the request; a single entity's is shown, not copied."""
        if self.place is None:
            return array
        if len(array) == 1 and not isinstance(array, np.ma.MaskedArray):
            return np.broadcast_to(array, (len(self.place), *array.shape[1:]))
        return array[self.place]

    def numpy(self, name: str) -> NDArray[Any]:
        """[n] or [n, width], a feature of each row (columns.to_numpy)."""
        return self.spread(columns.to_numpy(self.column(name)))

    def arrow(self, name: str) -> pa.Array:
        """A feature of each row (columns.to_arrow)."""
        array = columns.to_arrow(self.column(name))
        return array if self.place is None else array.take(pa.array(self.place))

    def status(self) -> NDArray[np.uint8]:
        """[n], of Status."""
        return self.spread(self.rows.status)

    def event_timestamp(self) -> NDArray[np.datetime64]:
        """[n], UTC, in microseconds; NaT where there is no sound row."""
        moments = self.rows.event_timestamp_us.astype("datetime64[us]")
        moments[self.rows.status >= Status.ABSENT] = np.datetime64("NaT")
        return self.spread(moments)


def distinct(keys: list[bytes]) -> tuple[list[bytes], NDArray[np.int64] | None]:
    """The keys without repeats, and which of them each key is; None if none repeats."""
    if len(set(keys)) == len(keys):
        return keys, None
    once = list(dict.fromkeys(keys))
    place = {key: i for i, key in enumerate(once)}
    return once, np.array([place[key] for key in keys], np.int64)
