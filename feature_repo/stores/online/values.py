"""Converts Feast's protobuf messages to columns and keys, and columns to protobuf messages and Python values.

Reading features as NumPy, Arrow or tensors does not run through this module.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from feast.protos.feast.types import Value_pb2
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from feast.value_type import ValueType
from numpy.typing import NDArray

from feature_repo.arrow import columns, timestamps
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.errors import InvalidInputError
from feature_repo.online import entity_keys
from feature_repo.online.decode import DecodedRows, Status
from feature_repo.online.row_format import NO_CREATED_TIMESTAMP

NULL_TIMESTAMP = timestamps.NULL_TICKS
"""Feast's value for a missing timestamp: the smallest int64."""
_SAME_ATTRIBUTE = {"pdf_bytes": "bytes_val", "image_bytes": "bytes_val"}
_PLAIN = {"bool", "int32", "int64", "float", "double", "string", "bytes", "pdf_bytes", "image_bytes"}
"""Types whose Arrow values as Python objects are what Feast gives."""


def to_column(field: Field, values: Sequence[Value | None]) -> Column:
    """Convert the protobuf values of one feature to a column, in their order; None and empty values become null.

    Args:
        field: the feature.
        values: n values; n may be 0.

    Raises:
        InvalidInputError: a value has another type than the feature.
    """
    if field.is_message:
        data = [None if _is_empty(value) else value.SerializeToString() for value in values]  # type: ignore[union-attr]
        return Column(field, pa.array(data, pa.binary()))
    plain = [_plain(field, value) for value in values]
    kind = pa.int64() if field.base == "unix_timestamp" else columns.element_type(field)
    try:
        return columns.from_arrow(field, pa.array(plain, pa.list_(kind) if field.is_list else kind))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise InvalidInputError(f"feature `{field.name}` is {field.type}; a value does not fit: {error}") from error


def from_arrow(field: Field, array: pa.ChunkedArray) -> Column:
    """Convert an Arrow array to the column of a feature; maps and structs become serialized Feast values.

    Args:
        field: the feature.
        array: the values. Bytes are taken as serialized values already if the feature is a map or struct.

    Raises:
        InvalidInputError: the array's type does not fit the feature's.
    """
    if not field.is_message or pa.types.is_binary(array.type):
        return columns.from_arrow(field, array)
    protos = python_values_to_proto_values(array.to_numpy(zero_copy_only=False), ValueType[field.type.upper()])
    return to_column(field, protos)


def _is_empty(value: Value | None) -> bool:
    """Return whether a protobuf value is missing: None, unset or null."""
    return value is None or value.WhichOneof("val") in (None, "null_val")


def _plain(field: Field, value: Value | None) -> Any:
    """Return a protobuf value as a Python value, a list for a list; None if it is missing."""
    if value is None or _is_empty(value):
        return None
    plain = getattr(value, value.WhichOneof("val") or "")
    if hasattr(plain, "val"):
        return list(plain.val)
    return None if field.type == "unix_timestamp" and plain == NULL_TIMESTAMP else plain


def to_protos(column: Column) -> list[Value]:
    """Convert a column to protobuf values, in its order; null becomes an empty `Value`, which has no type."""
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
    """Convert a column to the Python values of Feast's `to_dict`, in its order; null becomes None.

    Timestamps become datetimes in UTC.
    """
    if column.field.type in _PLAIN or (column.field.base in _PLAIN and column.field.type.endswith("_list")):
        return _plain_values(column)
    return [feast_value_type_to_python_type(value) for value in to_protos(column)]


def _plain_values(column: Column) -> list[Any]:
    """Convert a column to numbers, texts, bytes or lists of them, timestamps in seconds; null becomes None."""
    values, valid = column.values, column.valid
    if isinstance(values, np.ndarray) and column.words is None:
        plain = values.tolist()
        return (
            plain
            if valid is None
            else [value if is_valid else None for value, is_valid in zip(plain, valid, strict=True)]
        )
    array = columns.to_arrow(column)
    if column.field.base == "unix_timestamp":
        array = array.cast(pa.list_(pa.int64()) if column.field.is_list else pa.int64())
    return array.to_pylist()


def to_microseconds(times: Sequence[datetime | None]) -> NDArray[np.int64]:
    """Convert n datetimes to int64 [n], microseconds since 1970 UTC; those without a time zone are UTC.

    None becomes NO_CREATED_TIMESTAMP.
    """
    return np.array(
        [NO_CREATED_TIMESTAMP if one is None else timestamps.datetime_to_ticks(one, "us") for one in times], np.int64
    )


def to_feast(rows: DecodedRows) -> list[tuple[datetime | None, dict[str, Value] | None]]:
    """Convert rows to event timestamps and features by name, as Feast's `online_read` returns them.

    The timestamps have the time zone UTC. The order is that of the rows. A row that is absent or failed becomes (None,
    None). A feature that a row was written without is left out, which Feast reports as NOT_FOUND.
    """
    protos = {name: to_protos(column) for name, column in rows.columns.items()}
    unwritten = {name: set(np.flatnonzero(mask).tolist()) for name, mask in rows.unwritten.items()}
    return [
        (
            timestamps.EPOCH + timedelta(microseconds=event),
            {name: column[i] for name, column in protos.items() if i not in unwritten.get(name, ())},
        )
        if status in (Status.PRESENT, Status.STALE)
        else (None, None)
        for i, (status, event) in enumerate(zip(rows.status.tolist(), rows.event_timestamp_us.tolist(), strict=True))
    ]


def make_keys(prefix: bytes, entities: Sequence[EntityKey]) -> list[bytes]:
    """Return the keys in the store of Feast's entity keys, in their order, repeats included.

    Args:
        prefix: the bytes that the keys of the view start with.
        entities: the entity keys, all with the same join keys in the same order; none give an empty list.

    Raises:
        InvalidInputError: a value is missing, or is not text, bytes or an integer.
    """
    if not entities:
        return []
    names = list(entities[0].join_keys)
    order = sorted(range(len(names)), key=names.__getitem__)
    ids = [[_scalar(entity.entity_values[i]) for entity in entities] for i in order]
    return entity_keys.make_keys(prefix, ids or [[""] * len(entities)])


def _scalar(value: Value) -> Any:
    """Return the value of one join key; None if it is not set."""
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)
