"""The result of a fetch: features of n rows as arrays, and the status of each row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.online.decode import DecodedRows, Status, count_statuses

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, repr=False)
class ViewRows:
    """The rows read from one view for a request of n rows.

    Many rows of a request may have the same entity (one user beside 500 candidates). Each entity is read and kept once.
    """

    rows: DecodedRows
    """One row for each distinct entity."""
    row_index: NDArray[np.int64] | None
    """int64 [n], for each row of the request its index in `rows`; None if row i of the request is row i of `rows`."""
    names: Mapping[str, str]
    """Name in the result (view__feature, if full names were asked for) -> the view's own name of the feature."""

    def __repr__(self) -> str:
        return f"ViewRows({count_statuses(self.rows.status)}; {', '.join(self.names)})"

    def column(self, name: str) -> Column:
        """Return a feature of each distinct entity, in the order of `rows`.

        Args:
            name: the feature's name in the result.

        Raises:
            KeyError: the view has no such feature.
        """
        return self.rows.columns[self.names[name]]

    def expand(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array with a row for each distinct entity as one with a row for each of the request's n rows.

        The result may be a view of `array`: where `row_index` is None, and, read-only, where there is one entity.
        """
        if self.row_index is None:
            return array
        if len(array) == 1 and not isinstance(array, np.ma.MaskedArray):
            return np.broadcast_to(array, (len(self.row_index), *array.shape[1:]))
        return array[self.row_index]

    def numpy(self, name: str) -> NDArray[Any]:
        """Return a feature of each row, [n] or [n, width]: a missing float is NaN, another number masked, text None.

        Texts are an object array, timestamps are datetime64[s], NaT where missing.

        Args:
            name: the feature's name in the result.

        Raises:
            KeyError: the view has no such feature.
        """
        return self.expand(columns.to_numpy(self.column(name)))

    def arrow(self, name: str) -> pa.Array:
        """Return a feature of each row as an Arrow array [n], null where it is missing.

        Text with storage "dictionary" is dictionary-encoded.

        Args:
            name: the feature's name in the result.

        Raises:
            KeyError: the view has no such feature.
        """
        array = columns.to_arrow(self.column(name))
        return array if self.row_index is None else array.take(pa.array(self.row_index))

    def status(self) -> NDArray[np.uint8]:
        """Return the `Status` of each row of the request, uint8 [n]. If all rows have one entity, it is read-only."""
        return self.expand(self.rows.status)

    def feature_status(self, name: str) -> NDArray[np.uint8]:
        """Return the `Status` of each row of the request for one feature, uint8 [n].

        It is the row's, except ABSENT where the row was written before the view had the feature. May be read-only.

        Args:
            name: the feature's name in the result.

        Raises:
            KeyError: the view has no such feature.
        """
        return self.expand(self.rows.feature_status(self.names[name]))

    def event_timestamp(self) -> NDArray[np.datetime64]:
        """Return the event timestamp of each row, datetime64[us] [n], UTC; NaT for an absent or failed row.

        A stale row has its timestamp.
        """
        timestamps = self.rows.event_timestamp_us.astype("datetime64[us]")
        timestamps[self.rows.status >= Status.ABSENT] = np.datetime64("NaT")
        return self.expand(timestamps)


@dataclass(frozen=True, repr=False)
class FeatureBatch:
    """Features of n rows, in the order of the request's ids."""

    count: int
    """The number of rows, n."""
    views: Mapping[str, ViewRows]
    """The rows read from each view, by the view's name in the service."""
    on_demand: tuple[str, ...] = ()
    """The service's on-demand views. The store does not hold them, so the batch has no features of them."""

    def __repr__(self) -> str:
        """Return a line for each view: its rows by status and its features, without values."""
        lines = [f"FeatureBatch of {count_statuses(self.status)}"]
        lines += [
            f"  {name}, {count_statuses(view.status())}: {', '.join(view.names)}" for name, view in self.views.items()
        ]
        lines += [f"  {name}: on demand, not in the store" for name in self.on_demand]
        return "\n".join(lines)

    @cached_property
    def values(self) -> Mapping[str, NDArray[Any]]:
        """Each feature as an array [n]; vectors as one float32 matrix [n, width].

        Looking up a feature that the batch does not have is a KeyError. A feature is converted when it is first looked
        up; several rows of one entity may share memory, read-only. A missing float is NaN, another missing number is
        masked, missing text is None. Timestamps are datetime64[s], NaT where missing. Lists of different lengths are an
        object array of arrays. Maps and structs are the bytes of Feast's `Value`. A vector without a `vector_length` in
        its Field has width 0 if no row has a value.
        """
        return _FeatureArrays({name: view for view in self.views.values() for name in view.names})

    @cached_property
    def status(self) -> NDArray[np.uint8]:
        """The `Status` of each row, uint8 [n]: the worst of all views; PRESENT if there are no views.

        `views[name].status()` has each view's own, and `feature_status` that of one feature.
        """
        worst = np.full(self.count, Status.PRESENT, np.uint8)
        for view in self.views.values():
            worst = np.maximum(worst, view.status())
        return worst

    def feature_status(self, name: str) -> NDArray[np.uint8]:
        """Return the `Status` of each row for one feature, uint8 [n].

        It is that of the view's row, except ABSENT where the row was written before the view had the feature. A row
        with other requested features is not ABSENT for that.

        Raises:
            NotFoundError: the batch has no such feature.
        """
        return self._view_of(name).feature_status(name)

    @cached_property
    def event_timestamp(self) -> NDArray[np.datetime64]:
        """The oldest event timestamp of each row's views, datetime64[us] [n], UTC.

        NaT if the row is absent or failed in any of the views, or if there are no views.
        """
        timestamps = [view.event_timestamp() for view in self.views.values()]
        return np.min(timestamps, axis=0) if timestamps else np.full(self.count, "NaT", "datetime64[us]")

    def distinct(self, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return a feature of each distinct entity, and the index of each row's entity, int64 [n].

        Entities are in the order in which the ids first name them. The feature is converted as in `values`.

        Raises:
            NotFoundError: the batch has no such feature.
        """
        view = self._view_of(name)
        row_index = np.arange(self.count) if view.row_index is None else view.row_index
        return columns.to_numpy(view.column(name)), row_index

    def arrow(self, name: str) -> pa.Array:
        """Return a feature as an Arrow array [n], null where it is missing; text may be dictionary-encoded.

        Raises:
            NotFoundError: the batch has no such feature.
        """
        return self._view_of(name).arrow(name)

    def tensor(self, name: str) -> "torch.Tensor":
        """Return a numeric feature as a CPU tensor [n] or [n, width] of its own dtype; a missing float is NaN.

        Booleans count as numbers, timestamps do not.

        It shares memory with `values[name]` if that array is writable and contiguous, and is a copy otherwise.

        Raises:
            KeyError: the batch has no such feature.
            InvalidInputError: the feature is not numeric, or it has no NaN and is missing in some rows.
        """
        import torch

        array = self.values[name]
        if np.ma.is_masked(array) or array.dtype.kind not in "biuf":
            raise InvalidInputError(
                f"feature `{name}` is not numeric, or is missing in some rows and has no NaN; a tensor cannot hold it: "
                f"use values[`{name}`]"
            )
        return torch.from_numpy(np.require(np.ma.getdata(array), requirements=["C", "W"]))

    def _view_of(self, name: str) -> ViewRows:
        """Return the view that has a feature; raise NotFoundError if none has."""
        for view in self.views.values():
            if name in view.names:
                return view
        raise NotFoundError(f"the batch has no feature `{name}`; it has {', '.join(self.values)}")


class _FeatureArrays(Mapping[str, NDArray[Any]]):
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
