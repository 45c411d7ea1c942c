"""Arrow timestamps as integers: ticks are microseconds or nanoseconds since 1970-01-01 UTC."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.errors import InvalidInputError

NULL_TICKS = int(np.iinfo(np.int64).min)
"""Represents null in arrays of ticks, in packed rows (online/row_format.py) and in Feast's own values."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Length of one tick of each Arrow unit, in nanoseconds."""


def comparison_unit(column: pa.ChunkedArray) -> str:
    """Return the unit in which to compare a timestamp column: "ns" if it is stored in nanoseconds, else "us".

    Columns of dates, and of any other type, are "us" too.
    """
    return "ns" if pa.types.is_timestamp(column.type) and column.type.unit == "ns" else "us"


def to_ticks(column: pa.ChunkedArray, unit: str) -> NDArray[np.int64]:
    """Convert a column of timestamps or dates to int64 [n] ticks.

    Timestamps without a time zone are taken as UTC, dates as midnight UTC. A column in a finer unit than `unit` is
    rounded down, also before 1970. A time that does not fit 64 bits in `unit` becomes the nearest one that does.

    Args:
        column: timestamps of any unit and zone, or dates.
        unit: "us" or "ns".

    Returns:
        int64 [n]; NULL_TICKS where the column is null.

    Raises:
        InvalidInputError: the column holds neither timestamps nor dates.
    """
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if not pa.types.is_timestamp(column.type):
        raise InvalidInputError(f"a column of type {column.type} was given; expected a timestamp or date column")
    values = np.concatenate([_to_int64(chunk) for chunk in column.chunks] or [np.empty(0, np.int64)])
    source, target = NANOSECONDS[column.type.unit], NANOSECONDS[unit]
    valid = values != NULL_TICKS
    if source < target:
        return np.where(valid, values // (target // source), NULL_TICKS)
    if source > target:
        factor = source // target
        limit = np.iinfo(np.int64).max // factor
        return np.where(valid, np.clip(values, -limit, limit) * factor, NULL_TICKS)
    return values


def datetime_to_ticks(timestamp: datetime, unit: str) -> int:
    """Convert a datetime to ticks of `unit` ("us" or "ns").

    A datetime without a time zone is taken as UTC. One before 1970 gives a negative number.
    """
    return timedelta_to_ticks(as_utc(timestamp) - EPOCH, unit)


def as_utc(timestamp: datetime) -> datetime:
    """Return a datetime with a time zone: its own, or UTC if it has none."""
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)


def timedelta_to_ticks(duration: timedelta, unit: str) -> int:
    """Convert a duration to a number of ticks of `unit` ("us" or "ns"), exactly; negative for a negative duration."""
    return (duration // timedelta(microseconds=1)) * (1_000 // NANOSECONDS[unit])


def scalar_to_datetime(scalar: pa.Scalar) -> datetime:
    """Convert one Arrow timestamp, which must not be null, to a datetime in UTC, rounded down to the microsecond.

    A timestamp without a time zone is taken as UTC.

    Raises:
        OverflowError: the year is not in [1, 9999].
    """
    return EPOCH + timedelta(microseconds=scalar.value * NANOSECONDS[scalar.type.unit] // 1_000)


def to_utc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of timestamps or dates with UTC as its time zone; the instants stay the same.

    Timestamps keep their unit; those without a time zone are taken as UTC. Dates become midnight UTC in microseconds.
    Nulls stay null. That the column is of either type is not checked.
    """
    unit = "us" if pa.types.is_date(column.type) else column.type.unit
    return column.cast(pa.timestamp(unit)).cast(pa.timestamp(unit, tz="UTC"))


def _to_int64(chunk: pa.Array) -> NDArray[np.int64]:
    values: Any = chunk.view(pa.int64())
    if chunk.null_count:
        values = values.fill_null(NULL_TICKS)
    return values.to_numpy(zero_copy_only=True)
