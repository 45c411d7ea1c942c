"""What `get_online_features` hands out: columns, of which NumPy, Arrow and tensors are views or copies.

An entity that the request names many times (a user beside 500 candidates) is read and kept once. Protobuf and Python
values are made only for those who ask for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from feast.online_response import TIMESTAMP_POSTFIX, OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from feature_repo.errors import VitrineError
from feature_repo.stores.online import values
from feature_repo.tables import columns
from feature_repo.tables.columns import Column
from feature_repo.tables.decode import Rows, Status

if TYPE_CHECKING:
    import torch

FEAST_STATUS = np.zeros(len(Status), np.uint8)
"""Feast's name for each Status; a damaged row is INVALID."""
FEAST_STATUS[[Status.PRESENT, Status.STALE, Status.ABSENT, Status.FAILED]] = [
    FieldStatus.PRESENT,
    FieldStatus.OUTSIDE_MAX_AGE,
    FieldStatus.NOT_FOUND,
    FieldStatus.INVALID,
]


@dataclass(frozen=True)
class ViewRows:
    """What was read of one view."""

    rows: Rows
    """Of each distinct entity."""
    place: NDArray[np.int64] | None
    """[n], which of them each row of the request is; None if they are the same."""
    names: Mapping[str, str]
    """The view's features, by their names in the response."""
    view: str
    version: int = 0

    def spread(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array of the distinct entities, for the rows of the request."""
        if self.place is None:
            return array
        if len(array) == 1:
            return np.broadcast_to(array, (len(self.place), *array.shape[1:]))
        return array[self.place]


@dataclass(frozen=True)
class Given:
    """A column that the request itself brought: a join key."""

    values: Sequence[Any]
    type: ValueType


class ColumnarResponse(OnlineResponse):
    """Online features of n rows."""

    def __init__(
        self, given: Mapping[str, Given], parts: Sequence[ViewRows], count: int, versions: bool = False
    ) -> None:
        """
        Args:
            given: the request's own columns, by name.
            parts: what was read, view by view.
            count: rows of the request.
            versions: whether the protobuf form says which version of each view was read.
        """
        self._given = given
        self._parts = {name: part for part in parts for name in part.names}
        self._views = parts
        self._count = count
        self._versions = versions

    @property
    def feature_names(self) -> list[str]:
        """The columns: those that the request brought, then the features."""
        return [*self._given, *self._parts]

    def status(self, name: str) -> NDArray[np.uint8]:
        """[n], Feast's `FieldStatus` of a feature in each row."""
        return self._part(name).spread(FEAST_STATUS[self._part(name).rows.status])

    def event_timestamp(self, name: str) -> NDArray[np.datetime64]:
        """[n], since when each value of a feature holds, UTC; NaT where there is none."""
        part = self._part(name)
        moments = part.rows.event_timestamp.astype("datetime64[us]")
        moments[part.rows.status >= Status.ABSENT] = np.datetime64("NaT")
        return part.spread(moments)

    def distinct(self, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """A feature's values of each distinct entity, and [n], which of them each row has."""
        part = self._part(name)
        place = np.arange(self._count) if part.place is None else part.place
        return columns.to_numpy(self._column(name)), place

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """Every column as `columns.to_numpy` gives it; a vector feature is one matrix [n, width].

        Where all rows are of one entity, its values are shown n times (read-only) instead of copied.
        """
        given = {name: np.asarray(one.values) for name, one in self._given.items()}
        return given | {name: part.spread(columns.to_numpy(self._column(name))) for name, part in self._parts.items()}

    def to_arrow(self, include_event_timestamps: bool = False) -> pa.Table:
        """Every column as Arrow; text of few different values is dictionary-encoded."""
        table: dict[str, Any] = {name: pa.array(one.values) for name, one in self._given.items()}
        if include_event_timestamps:
            table |= {f"{name}{TIMESTAMP_POSTFIX}": pa.array([0] * self._count) for name in self._given}
        for name, part in self._parts.items():
            array = columns.to_arrow(self._column(name))
            table[name] = array if part.place is None else array.take(pa.array(part.place))
            if include_event_timestamps:
                table[name + TIMESTAMP_POSTFIX] = pa.array(self._seconds(part))
        return pa.table(table)

    def to_tensor(
        self, kind: str = "torch", default_value: Any = float("nan")
    ) -> "dict[str, torch.Tensor | list[Any]]":
        """Numbers and vectors as tensors, on the GPU if there is one; all else as lists.

        Args:
            default_value: stands for what is missing; integers and booleans become floats where it is NaN.
        """
        if kind != "torch":
            raise VitrineError(f"tensors of kind `{kind}` are unknown; the one kind is `torch`")
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        tensors: dict[str, Any] = {}
        for name, array in self.to_numpy().items():
            if array.dtype.kind not in "biuf":
                listed = values.to_python(self._column(name)) if name in self._parts else list(array)
                part = self._parts.get(name)
                if part is not None and part.place is not None:
                    listed = [listed[i] for i in part.place.tolist()]
                tensors[name] = [default_value if value is None else value for value in listed]
                continue
            tensors[name] = torch.from_numpy(_filled(array, self._missing(name), default_value)).to(device)
        return tensors

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, list[Any]]:
        """Every column as Python values, None where missing."""
        response: dict[str, list[Any]] = {}
        for name, one in self._given.items():
            response[name] = list(one.values)
            if include_event_timestamps:
                response[name + TIMESTAMP_POSTFIX] = [0] * self._count
        for name, part in self._parts.items():
            listed = values.to_python(self._column(name))
            response[name] = listed if part.place is None else [listed[i] for i in part.place.tolist()]
            if include_event_timestamps:
                response[name + TIMESTAMP_POSTFIX] = self._seconds(part).tolist()
        return response

    def to_df(self, include_event_timestamps: bool = False) -> pd.DataFrame:
        """Every column as pandas holds the values of `to_dict`."""
        return pd.DataFrame(self.to_dict(include_event_timestamps))

    @cached_property
    def proto(self) -> GetOnlineFeaturesResponse:
        """The response as Feast's servers send it; built when first asked for."""
        response = GetOnlineFeaturesResponse(results=[])
        for name, one in self._given.items():
            response.metadata.feature_names.val.append(name)
            response.results.append(
                GetOnlineFeaturesResponse.FeatureVector(
                    values=python_values_to_proto_values(list(one.values), one.type),
                    statuses=[FieldStatus.PRESENT] * self._count,
                    event_timestamps=[Timestamp()] * self._count,
                )
            )
        for part in self._views:
            self._add_to_proto(response, part)
        return response

    def _add_to_proto(self, response: GetOnlineFeaturesResponse, part: ViewRows) -> None:
        moments = [Timestamp() for _ in part.rows.event_timestamp]
        for moment, microseconds in zip(moments, part.rows.event_timestamp.tolist(), strict=True):
            moment.FromMicroseconds(microseconds)
        place = range(self._count) if part.place is None else part.place.tolist()
        statuses = FEAST_STATUS[part.rows.status].tolist()
        for name in part.names:
            protos = values.to_protos(self._column(name))
            response.metadata.feature_names.val.append(name)
            response.results.append(
                GetOnlineFeaturesResponse.FeatureVector(
                    values=[protos[i] for i in place],
                    statuses=[statuses[i] for i in place],
                    event_timestamps=[moments[i] for i in place],
                )
            )
        if self._versions and part.view not in {one.name for one in response.metadata.feature_view_metadata}:
            response.metadata.feature_view_metadata.add(name=part.view, version=part.version)

    def _part(self, name: str) -> ViewRows:
        try:
            return self._parts[name]
        except KeyError:
            raise VitrineError(f"the response has no feature `{name}`; it has {', '.join(self._parts)}") from None

    def _column(self, name: str) -> Column:
        return self._parts[name].rows.columns[self._parts[name].names[name]]

    def _missing(self, name: str) -> NDArray[np.bool_] | None:
        valid = self._column(name).valid if name in self._parts else None
        return None if valid is None else self._parts[name].spread(~valid)

    def _seconds(self, part: ViewRows) -> NDArray[np.int64]:
        return part.spread(part.rows.event_timestamp // 1_000_000)


def _filled(array: NDArray[Any], missing: NDArray[np.bool_] | None, default_value: Any) -> NDArray[Any]:
    """The array, writable, with `default_value` where values are missing."""
    plain = np.ma.getdata(array)
    if missing is not None and missing.any():
        if plain.dtype.kind in "biu" and isinstance(default_value, float):
            plain = plain.astype(np.float64)
        plain = np.array(plain)
        plain[missing] = default_value
    return np.require(plain, requirements=["C", "W"])
