"""What the online reader hands out: features of n rows as arrays, and what became of each row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.errors import VitrineError
from feature_repo.online.decode import DecodedRows, Status

if TYPE_CHECKING:
    import torch


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


@dataclass(frozen=True)
class FeatureBatch:
    """Features of n rows, in the order in which they were asked for."""

    count: int
    views: Mapping[str, ViewRows]
    """What was read of each view, by its name in the service."""
    on_demand: tuple[str, ...] = ()
    """The service's on-demand views, which are computed and not stored: they are not in the block."""

    @cached_property
    def values(self) -> Mapping[str, NDArray[Any]]:
        """Each feature as an array [n], vectors as one float32 matrix [n, width]; converted when first looked at.

        Where not one row of a vector is there, and its Field says no length, its width is not known: [n, 0]. Missing
        floats are NaN, other missing numbers are masked, missing text is None. Lists that differ in length are an
        object array of arrays; maps and structs are the bytes of Feast's `Value`.
        """
        return _Values({name: view for view in self.views.values() for name in view.names})

    @cached_property
    def status(self) -> NDArray[np.uint8]:
        """[n], of Status: the worst of the row's views (`views[...].status()` for each)."""
        worst = np.full(self.count, Status.PRESENT, np.uint8)
        for view in self.views.values():
            worst = np.maximum(worst, view.status())
        return worst

    @cached_property
    def event_timestamp(self) -> NDArray[np.datetime64]:
        """[n], UTC: the oldest of the row's views; NaT where one of them has no row."""
        moments = [view.event_timestamp() for view in self.views.values()]
        return np.min(moments, axis=0) if moments else np.full(self.count, "NaT", "datetime64[us]")

    def distinct(self, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """A feature of each distinct entity, and [n], which of them each row has."""
        view = self._view(name)
        place = np.arange(self.count) if view.place is None else view.place
        return columns.to_numpy(view.column(name)), place

    def arrow(self, name: str) -> pa.Array:
        """A feature as Arrow holds it, null where missing."""
        return self._view(name).arrow(name)

    def tensor(self, name: str) -> "torch.Tensor":
        """A feature of numbers as a tensor, which shares the array's memory.

        Raises:
            VitrineError: the feature is no number, or is one that cannot be NaN and is missing in some rows.
        """
        import torch

        array = self.values[name]
        if np.ma.is_masked(array) or array.dtype.kind not in "biuf":
            raise VitrineError(f"feature `{name}` is no tensor: it is not numeric, or missing in some rows")
        return torch.from_numpy(np.require(np.ma.getdata(array), requirements=["C", "W"]))

    def _view(self, name: str) -> ViewRows:
        for view in self.views.values():
            if name in view.names:
                return view
        raise VitrineError(f"the block has no feature `{name}`; it has {', '.join(self.values)}")


class _Values(Mapping[str, NDArray[Any]]):
    """Features as NumPy arrays, each converted once."""

    def __init__(self, views: Mapping[str, ViewRows]) -> None:
        self._views = views
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            self._arrays[name] = self._views[name].numpy(name)
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)
