"""Arrow timestamps as integers: microseconds or nanoseconds since 1970, UTC."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.errors import VitrineError

NULL_TICKS = int(np.iinfo(np.int64).min)
"""Stands for null: in arrays, in packed rows (layout.py) and in Feast's own values alike."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def comparison_unit(column: pa.ChunkedArray) -> str:
    """The unit to compare a column of timestamps in: nanoseconds if it is kept in those, else microseconds."""
    return "ns" if pa.types.is_timestamp(column.type) and column.type.unit == "ns" else "us"


def to_ticks(column: pa.ChunkedArray, unit: str) -> npt.NDArray[np.int64]:
    """Timestamps (with or without a zone: then UTC) or dates (midnight UTC) as integers of `unit`, null as `NEVER`.

    A finer column is rounded down.

    Raises:
        VitrineError: the column holds no times.
    """
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if not pa.types.is_timestamp(column.type):
        raise VitrineError(f"a column of type {column.type} stands where a timestamp was expected")
    values = np.concatenate([_values(chunk) for chunk in column.chunks] or [np.empty(0, np.int64)])
    finer, coarser = NANOSECONDS[column.type.unit], NANOSECONDS[unit]
    known = values != NULL_TICKS
    if finer < coarser:
        return np.where(known, values // (coarser // finer), NULL_TICKS)
    if finer > coarser:
        factor = finer // coarser
        limit = np.iinfo(np.int64).max // factor
        return np.where(known, np.clip(values, -limit, limit) * factor, NULL_TICKS)
    return values


def datetime_to_ticks(time: datetime, unit: str) -> int:
    """One moment as an integer of `unit`; without a zone it is UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return timedelta_to_ticks(aware - EPOCH, unit)


def timedelta_to_ticks(span: timedelta, unit: str) -> int:
    """A span of time as an integer of `unit`."""
    return (span // timedelta(microseconds=1)) * (1_000 // NANOSECONDS[unit])


def scalar_to_datetime(scalar: pa.Scalar) -> datetime:
    """One value of a column of timestamps, in UTC, rounded down to the microsecond."""
    return EPOCH + timedelta(microseconds=scalar.value * NANOSECONDS[scalar.type.unit] // 1_000)


def to_utc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same times with UTC as their zone; without a zone they were UTC, and a date is its midnight."""
    unit = "us" if pa.types.is_date(column.type) else column.type.unit
    return column.cast(pa.timestamp(unit)).cast(pa.timestamp(unit, tz="UTC"))


def _values(chunk: pa.Array) -> npt.NDArray[np.int64]:
    whole: Any = chunk.view(pa.int64())
    if not chunk.null_count:
        return whole.to_numpy(zero_copy_only=True)
    return whole.fill_null(NULL_TICKS).to_numpy(zero_copy_only=True)
