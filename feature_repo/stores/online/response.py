"""The response of `get_online_features`: columns, converted to NumPy, Arrow, tensors, Python or protobuf on request.

An entity that the request names many times (a user beside 500 candidates) is read and kept once.
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
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.online.decode import Status
from feature_repo.online.feature_batch import ViewRows
from feature_repo.stores.online import values

if TYPE_CHECKING:
    import torch

FEAST_STATUS = np.zeros(len(Status), np.uint8)
"""Feast's status for each Status; a failed row is INVALID."""
FEAST_STATUS[[Status.PRESENT, Status.STALE, Status.ABSENT, Status.FAILED]] = [
    FieldStatus.PRESENT,
    FieldStatus.OUTSIDE_MAX_AGE,
    FieldStatus.NOT_FOUND,
    FieldStatus.INVALID,
]


@dataclass(frozen=True)
class FeastViewRows:
    """The rows read from one view, and Feast's name and version of the view."""

    rows: ViewRows
    """The rows, and which of them each row of the request has."""
    view: str
    """Feast's name of the view."""
    version: int
    """Feast's version number of the view; 0 for a view without versions."""


@dataclass(frozen=True)
class RequestColumn:
    """A join key column of the request."""

    values: Sequence[Any]
    """The id of each row of the request."""
    type: ValueType
    """Feast's type of the join key; UNKNOWN if Feast has none for it."""


class ColumnarResponse(OnlineResponse):
    """Online features of n rows, in the order of the request, repeats included.

    Args:
        request_columns: the join key columns of the request, by name.
        parts: the rows read from each view; the features are in the order of the parts.
        count: the number of rows, n.
        include_versions: whether the protobuf form says which version of each view was read.
    """

    def __init__(
        self,
        request_columns: Mapping[str, RequestColumn],
        parts: Sequence[FeastViewRows],
        count: int,
        include_versions: bool = False,
    ) -> None:
        self._request_columns = request_columns
        self._rows = {name: part.rows for part in parts for name in part.rows.names}
        self._parts = parts
        self._count = count
        self._include_versions = include_versions

    @property
    def feature_names(self) -> list[str]:
        """The names of all columns: the request's join keys, then the features."""
        return [*self._request_columns, *self._rows]

    def status(self, name: str) -> NDArray[np.uint8]:
        """Return Feast's `FieldStatus` of a feature for each row, uint8 [n].

        It is that of the view's row: PRESENT, OUTSIDE_MAX_AGE (stale), NOT_FOUND (absent) or INVALID (failed). A row
        that was written before the view had the feature is NOT_FOUND for it.

        Args:
            name: the feature's name in the response; join keys have no status.

        Raises:
            NotFoundError: the response has no such feature.
        """
        return FEAST_STATUS[self._feature(name).feature_status(name)]

    def event_timestamp(self, name: str) -> NDArray[np.datetime64]:
        """Return the event timestamp of a feature for each row, datetime64[us] [n], UTC.

        NaT for an absent or failed row; a stale row has its timestamp.

        Args:
            name: the feature's name in the response; join keys have no timestamp.

        Raises:
            NotFoundError: the response has no such feature.
        """
        return self._feature(name).event_timestamp()

    def distinct(self, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return a feature of each distinct entity, and the index of each row's entity, int64 [n].

        Entities are in the order in which the request first names them. The feature is converted as in `to_numpy`.

        Args:
            name: the feature's name in the response; join keys have none.

        Raises:
            NotFoundError: the response has no such feature.
        """
        rows = self._feature(name)
        row_index = np.arange(self._count) if rows.row_index is None else rows.row_index
        return columns.to_numpy(rows.column(name)), row_index

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """Return every column as an array [n], by name, join keys first; a vector feature is one matrix [n, width].

        A missing float is NaN, another missing number is masked, missing text is None. Timestamps are datetime64[s],
        NaT where missing. If all rows have one entity, the array is a read-only view of its values.
        """
        join_keys = {name: np.asarray(one.values) for name, one in self._request_columns.items()}
        return join_keys | {name: rows.numpy(name) for name, rows in self._rows.items()}

    def to_arrow(self, include_event_timestamps: bool = False) -> pa.Table:
        """Return every column as Arrow, null where it is missing; text with storage "dictionary" is dictionary-encoded.

        The columns are in the order of `feature_names`.

        Args:
            include_event_timestamps: whether to add, after each column or after all join keys, a column of event
                timestamps in whole seconds since 1970 UTC; 0 for join keys and for absent or failed rows.
        """
        table: dict[str, Any] = {name: pa.array(one.values) for name, one in self._request_columns.items()}
        if include_event_timestamps:
            table |= {f"{name}{TIMESTAMP_POSTFIX}": pa.array([0] * self._count) for name in self._request_columns}
        for name, rows in self._rows.items():
            table[name] = rows.arrow(name)
            if include_event_timestamps:
                table[name + TIMESTAMP_POSTFIX] = pa.array(_seconds(rows))
        return pa.table(table)

    def to_tensor(
        self, kind: str = "torch", default_value: Any = float("nan")
    ) -> "dict[str, torch.Tensor | list[Any]]":
        """Return numbers and vectors as tensors, on the GPU if there is one, and other columns as lists.

        Args:
            kind: the library of the tensors; only "torch".
            default_value: replaces missing values, and every element of a missing vector. If it is a float, integers
                and booleans with missing values become floats.

        Raises:
            InvalidInputError: `kind` is not "torch".
        """
        if kind != "torch":
            raise InvalidInputError(f"tensors of kind `{kind}` are unknown; expected `torch`")
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        tensors: dict[str, Any] = {}
        for name, array in self.to_numpy().items():
            if array.dtype.kind not in "biuf":
                listed = self._to_list(name) if name in self._rows else array.tolist()
                tensors[name] = [default_value if value is None else value for value in listed]
                continue
            tensors[name] = torch.from_numpy(_filled(array, self._missing(name), default_value)).to(device)
        return tensors

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, list[Any]]:
        """Return every column as a list of n Python values, None where it is missing, in the order of `feature_names`.

        Args:
            include_event_timestamps: whether to add, after each column, a list of event timestamps in whole seconds
                since 1970 UTC; 0 for join keys and for absent or failed rows.
        """
        response: dict[str, list[Any]] = {}
        for name, one in self._request_columns.items():
            response[name] = list(one.values)
            if include_event_timestamps:
                response[name + TIMESTAMP_POSTFIX] = [0] * self._count
        for name, rows in self._rows.items():
            response[name] = self._to_list(name)
            if include_event_timestamps:
                response[name + TIMESTAMP_POSTFIX] = _seconds(rows).tolist()
        return response

    def to_df(self, include_event_timestamps: bool = False) -> pd.DataFrame:
        """Return the columns of `to_dict` as a DataFrame with n rows, in their order; its index counts from 0.

        Args:
            include_event_timestamps: whether to add, after each column, a column of event timestamps in whole seconds
                since 1970 UTC; 0 for join keys and for absent or failed rows.
        """
        return pd.DataFrame(self.to_dict(include_event_timestamps))

    @cached_property
    def proto(self) -> GetOnlineFeaturesResponse:
        """The response as Feast's servers send it, with a vector of values for each of `feature_names`, in that order.

        It is built at the first access, and the same object is returned later. A missing value is an empty `Value`.
        Join keys have the status PRESENT and the event timestamp 0.
        """
        response = GetOnlineFeaturesResponse(results=[])
        for name, one in self._request_columns.items():
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
        """Append values, statuses and timestamps of each feature of a view to the protobuf form."""
        rows = part.rows.rows
        timestamps = [Timestamp() for _ in rows.event_timestamp_us]
        for timestamp, microseconds in zip(timestamps, rows.event_timestamp_us.tolist(), strict=True):
            timestamp.FromMicroseconds(microseconds)
        row_index = range(self._count) if part.rows.row_index is None else part.rows.row_index.tolist()
        for name, feature in part.rows.names.items():
            protos = values.to_protos(part.rows.column(name))
            statuses = FEAST_STATUS[rows.feature_status(feature)].tolist()
            response.metadata.feature_names.val.append(name)
            response.results.append(
                GetOnlineFeaturesResponse.FeatureVector(
                    values=[protos[i] for i in row_index],
                    statuses=[statuses[i] for i in row_index],
                    event_timestamps=[timestamps[i] for i in row_index],
                )
            )
        if self._include_versions and part.view not in {one.name for one in response.metadata.feature_view_metadata}:
            response.metadata.feature_view_metadata.add(name=part.view, version=part.version)

    def _feature(self, name: str) -> ViewRows:
        """Return the rows of the view that has a feature; raise NotFoundError if none has."""
        try:
            return self._rows[name]
        except KeyError:
            raise NotFoundError(f"the response has no feature `{name}`; it has {', '.join(self._rows)}") from None

    def _to_list(self, name: str) -> list[Any]:
        """Return a feature as Python values."""
        rows = self._rows[name]
        listed = values.to_python(rows.column(name))
        return listed if rows.row_index is None else [listed[i] for i in rows.row_index.tolist()]

    def _missing(self, name: str) -> NDArray[np.bool_] | None:
        """Return where values are missing, bool [n]; None if nowhere, and for join keys."""
        valid = self._rows[name].column(name).valid if name in self._rows else None
        return None if valid is None else self._rows[name].expand(~valid)


def _seconds(rows: ViewRows) -> NDArray[np.int64]:
    """Return the event timestamp of each row in whole seconds since 1970 UTC; 0 for an absent or failed row."""
    return rows.expand(rows.rows.event_timestamp_us // 1_000_000)


def _filled(array: NDArray[Any], missing: NDArray[np.bool_] | None, default_value: Any) -> NDArray[Any]:
    """Return the array, writable, with `default_value` where values are missing."""
    plain = np.ma.getdata(array)
    if missing is not None and missing.any():
        if plain.dtype.kind in "biu" and isinstance(default_value, float):
            plain = plain.astype(np.float64)
        plain = np.array(plain)
        plain[missing] = default_value
    return np.require(plain, requirements=["C", "W"])
