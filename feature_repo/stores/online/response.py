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

from feature_repo.arrow import columns
from feature_repo.errors import VitrineError
from feature_repo.online.decode import Status
from feature_repo.online.feature_batch import ViewRows
from feature_repo.stores.online import values

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
class FeastViewRows:
    """What was read of one view."""

    rows: ViewRows
    view: str
    version: int


@dataclass(frozen=True)
class RequestColumn:
    """A column that the request itself brought: a join key."""

    values: Sequence[Any]
    type: ValueType


class ColumnarResponse(OnlineResponse):
    """Online features of n rows."""

    def __init__(
        self, given: Mapping[str, RequestColumn], parts: Sequence[FeastViewRows], count: int, versions: bool = False
    ) -> None:
        """
        Args:
            given: the request's own columns, by name.
            parts: what was read, view by view.
            count: rows of the request.
            versions: whether the protobuf form says which version of each view was read.
        """
        self._given = given
        self._rows = {name: part.rows for part in parts for name in part.rows.names}
        self._parts = parts
        self._count = count
        self._versions = versions

    @property
    def feature_names(self) -> list[str]:
        """The columns: those that the request brought, then the features."""
        return [*self._given, *self._rows]

    def status(self, name: str) -> NDArray[np.uint8]:
        """[n], Feast's `FieldStatus` of a feature in each row."""
        return FEAST_STATUS[self._feature(name).status()]

    def event_timestamp(self, name: str) -> NDArray[np.datetime64]:
        """[n], since when each value of a feature holds, UTC; NaT where there is none."""
        return self._feature(name).event_timestamp()

    def distinct(self, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """A feature's values of each distinct entity, and [n], which of them each row has."""
        rows = self._feature(name)
        place = np.arange(self._count) if rows.row_index is None else rows.row_index
        return columns.to_numpy(rows.column(name)), place

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """Every column as `columns.to_numpy` gives it; a vector feature is one matrix [n, width].

        Where all rows are of one entity, its values are shown n times (read-only) instead of copied.
        """
        given = {name: np.asarray(one.values) for name, one in self._given.items()}
        return given | {name: rows.numpy(name) for name, rows in self._rows.items()}

    def to_arrow(self, include_event_timestamps: bool = False) -> pa.Table:
        """Every column as Arrow; text of few different values is dictionary-encoded."""
        table: dict[str, Any] = {name: pa.array(one.values) for name, one in self._given.items()}
        if include_event_timestamps:
            table |= {f"{name}{TIMESTAMP_POSTFIX}": pa.array([0] * self._count) for name in self._given}
        for name, rows in self._rows.items():
            table[name] = rows.arrow(name)
            if include_event_timestamps:
                table[name + TIMESTAMP_POSTFIX] = pa.array(_seconds(rows))
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
                listed = self._listed(name) if name in self._rows else array.tolist()
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
        for name, rows in self._rows.items():
            response[name] = self._listed(name)
            if include_event_timestamps:
                response[name + TIMESTAMP_POSTFIX] = _seconds(rows).tolist()
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
        for part in self._parts:
            self._add_to_proto(response, part)
        return response

    def _add_to_proto(self, response: GetOnlineFeaturesResponse, part: FeastViewRows) -> None:
        rows = part.rows.rows
        moments = [Timestamp() for _ in rows.event_timestamp_us]
        for moment, microseconds in zip(moments, rows.event_timestamp_us.tolist(), strict=True):
            moment.FromMicroseconds(microseconds)
        place = range(self._count) if part.rows.row_index is None else part.rows.row_index.tolist()
        statuses = FEAST_STATUS[rows.status].tolist()
        for name in part.rows.names:
            protos = values.to_protos(part.rows.column(name))
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

    def _feature(self, name: str) -> ViewRows:
        try:
            return self._rows[name]
        except KeyError:
            raise VitrineError(f"the response has no feature `{name}`; it has {', '.join(self._rows)}") from None

    def _listed(self, name: str) -> list[Any]:
        """A feature as Python values."""
        rows = self._rows[name]
        listed = values.to_python(rows.column(name))
        return listed if rows.row_index is None else [listed[i] for i in rows.row_index.tolist()]

    def _missing(self, name: str) -> NDArray[np.bool_] | None:
        valid = self._rows[name].column(name).valid if name in self._rows else None
        return None if valid is None else self._rows[name].expand(~valid)


def _seconds(rows: ViewRows) -> NDArray[np.int64]:
    return rows.expand(rows.rows.event_timestamp_us // 1_000_000)


def _filled(array: NDArray[Any], missing: NDArray[np.bool_] | None, default_value: Any) -> NDArray[Any]:
    """The array, writable, with `default_value` where values are missing."""
    plain = np.ma.getdata(array)
    if missing is not None and missing.any():
        if plain.dtype.kind in "biu" and isinstance(default_value, float):
            plain = plain.astype(np.float64)
        plain = np.array(plain)
        plain[missing] = default_value
    return np.require(plain, requirements=["C", "W"])
