"""Feast's protobuf values as columns, and back: for callers that want them, never on the fast path."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from feast.protos.feast.types import Value_pb2
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from feast.value_type import ValueType
from numpy.typing import NDArray

from feature_repo.arrow import columns, timestamps
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.errors import VitrineError
from feature_repo.online.decode import DecodedRows, Status
from feature_repo.online.row_format import NO_CREATED_TIMESTAMP

NULL_TIMESTAMP = timestamps.NULL_TICKS
"""What Feast writes for a missing timestamp."""
_SAME_ATTRIBUTE = {"pdf_bytes": "bytes_val", "image_bytes": "bytes_val"}
_PLAIN = {"bool", "int32", "int64", "float", "double", "string", "bytes", "pdf_bytes", "image_bytes"}
"""Types that Python holds as Arrow hands them out."""


def to_column(field: Field, values: Sequence[Value | None]) -> Column:
    """Protobuf values of one feature as a column.

    Raises:
        VitrineError: a value is of another type than the feature.
    """
    if field.is_message:
        data = [None if _empty(value) else value.SerializeToString() for value in values]  # type: ignore[union-attr]
        return Column(field, pa.array(data, pa.binary()))
    plain = [_plain(field, value) for value in values]
    kind = pa.int64() if field.base == "unix_timestamp" else columns.element_type(field)
    try:
        return columns.from_arrow(field, pa.array(plain, pa.list_(kind) if field.is_list else kind))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise VitrineError(f"feature `{field.name}` is {field.type}, but a value came that is not: {error}") from error


def from_arrow(field: Field, array: pa.ChunkedArray) -> Column:
    """An Arrow column as the column of a feature; maps and structs become what Feast makes of them.

    Raises:
        VitrineError: the array's type does not fit the feature's.
    """
    if not field.is_message or pa.types.is_binary(array.type):
        return columns.from_arrow(field, array)
    protos = python_values_to_proto_values(array.to_numpy(zero_copy_only=False), ValueType[field.type.upper()])
    return to_column(field, protos)


def _empty(value: Value | None) -> bool:
    return value is None or value.WhichOneof("val") in (None, "null_val")


def _plain(field: Field, value: Value | None) -> Any:
    if value is None or _empty(value):
        return None
    found = getattr(value, value.WhichOneof("val") or "")
    if hasattr(found, "val"):
        return list(found.val)
    return None if field.type == "unix_timestamp" and found == NULL_TIMESTAMP else found


def to_protos(column: Column) -> list[Value]:
    """A column as protobuf values; an empty one where it is missing."""
    field = column.field
    plain = _plain_values(column)
    if field.is_message:
        return [Value() if value is None else Value.FromString(value) for value in plain]
    attribute = _SAME_ATTRIBUTE.get(field.type, f"{field.type}_val")
    if not field.is_list:
        return [Value() if value is None else Value(**{attribute: value}) for value in plain]
    message = getattr(Value_pb2, Value.DESCRIPTOR.fields_by_name[attribute].message_type.name)
    return [Value() if value is None else Value(**{attribute: message(val=value)}) for value in plain]


def to_python(column: Column) -> list[Any]:
    """A column as the Python values that Feast's `to_dict` gives; None where it is missing."""
    if column.field.type in _PLAIN or (column.field.base in _PLAIN and column.field.type.endswith("_list")):
        return _plain_values(column)
    return [feast_value_type_to_python_type(value) for value in to_protos(column)]


def _plain_values(column: Column) -> list[Any]:
    """Numbers, texts and bytes or lists of them, timestamps as seconds; None where missing."""
    values, valid = column.values, column.valid
    if isinstance(values, np.ndarray) and column.words is None:
        plain = values.tolist()
        return plain if valid is None else [value if there else None for value, there in zip(plain, valid, strict=True)]
    array = columns.to_arrow(column)
    if column.field.base == "unix_timestamp":
        array = array.cast(pa.list_(pa.int64()) if column.field.is_list else pa.int64())
    return array.to_pylist()


def microseconds(moments: Sequence[datetime | None]) -> NDArray[np.int64]:
    """Moments as microseconds since 1970 UTC; those without a zone are UTC, None is NO_CREATED_TIMESTAMP."""
    return np.array(
        [NO_CREATED_TIMESTAMP if one is None else timestamps.datetime_to_ticks(one, "us") for one in moments], np.int64
    )


def to_feast(rows: DecodedRows) -> list[tuple[datetime | None, dict[str, Value] | None]]:
    """Rows as Feast's stores give them: nothing for an entity that is absent, stale or damaged."""
    protos = {name: to_protos(column) for name, column in rows.columns.items()}
    return [
        (timestamps.EPOCH + timedelta(microseconds=event), {name: column[i] for name, column in protos.items()})
        if status == Status.PRESENT
        else (None, None)
        for i, (status, event) in enumerate(zip(rows.status.tolist(), rows.event_timestamp_us.tolist(), strict=True))
    ]
