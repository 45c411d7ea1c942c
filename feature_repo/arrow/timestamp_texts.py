"""Reads timestamps from texts, as programs and databases write them.

    2026-11-02T10:05:00Z         ISO 8601; a blank instead of the T, no seconds, and up to 9 decimals are accepted
    2026-11-02 18:05:00+08       the offset as +08, +0800 or +08:00 (PostgreSQL, DuckDB, Python)
    2026-11-02 10:05:00 UTC      also GMT, and +0000 UTC (BigQuery, Go)
    2026/11/2 10:05              year, month and day joined by slashes (Excel, Hive); one digit is enough
    1793613900                   seconds since 1970: 9 or 10 digits, with or without decimals
    1793613900000                milliseconds: 12 or 13 digits; microseconds: 15 or 16; nanoseconds: 18 or 19

A text without an offset has no instant unless the caller names its time zone. Decimals beyond microseconds are cut off.
02/11/2026 is not read: it is a day of November in one country and of February in another.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.errors import UsageError
from feature_repo.schema import TIMESTAMP

ACCEPTED_FORMS = "2026-11-02T10:05:00Z, 2026-11-02 18:05:00+08, 2026-11-02 10:05:00 UTC, or seconds since 1970"
"""The forms to show in a message about a text that cannot be read."""

_MONTH_DAY = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
)
_LEAP_DAY = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29"
_DATE = rf"(?:\d{{4}}-{_MONTH_DAY}|{_LEAP_DAY})"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?"
_LOCAL = rf"^{_DATE}[T ]{_CLOCK}$"
_ABSOLUTE = rf"^{_DATE}[T ]{_CLOCK}(?:Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)$"
"""What Arrow's own cast reads. It would raise on any other text, so only texts of this form are given to it."""
_WRITTEN = (
    r"(?i)^(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})"
    r"(?:[T ](?P<hour>\d{1,2})(?P<minute>:\d\d)(?P<second>:\d\d(?:[.,]\d{1,9})?)?"
    r" ?(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?(?: UTC)?)?$"
)
_NUMBER = r"^(?P<digits>[1-9]\d{8,17}|[1-8]\d{18})(?:\.(?P<decimals>\d+))?$"
_MICROSECONDS_BY_LENGTH: dict[int, Callable[[pa.Array], pa.Array]] = {
    9: lambda number: pc.multiply(number, 1_000_000),
    12: lambda number: pc.multiply(number, 1_000),
    15: lambda number: number,
    18: lambda number: pc.divide(number, 1_000),
}
"""From a number to microseconds, by its number of digits; one digit more is the same unit."""


class ReadTimestamps(NamedTuple):
    """The timestamps of n texts."""

    values: pa.ChunkedArray
    """TIMESTAMP [n]; null where the text is null, has no offset and no time zone was given, or cannot be read."""
    naive: NDArray[np.bool_]
    """bool [n]: readable, but without an offset and without a time zone to take instead."""
    unparsable: NDArray[np.bool_]
    """bool [n]: not readable. Null is neither naive nor unparsable."""


def read_texts(text: pa.ChunkedArray, timezone: str | None = None) -> ReadTimestamps:
    """Read n texts, each in one of the forms above. White space around a text is ignored.

    Args:
        text: strings; may hold nulls.
        timezone: the zone of texts without an offset, as `Asia/Shanghai` or `+08:00`. Of an hour that occurs twice,
            when clocks are set back, the first is taken; a time that clocks skip is moved to the end of the gap. None
            leaves such texts unread.

    Raises:
        UsageError: `timezone` is not known.
    """
    if timezone is not None:
        check_timezone(timezone)
    read = [_read_chunk(chunk, timezone) for chunk in text.cast(pa.string()).chunks]
    no_rows = np.zeros(0, bool)
    return ReadTimestamps(
        pa.chunked_array([values for values, _ in read], TIMESTAMP),
        np.concatenate([no_rows, *(naive for _, naive in read)]),
        np.concatenate([no_rows, *(_to_mask(pc.is_null(values)) & ~naive for values, naive in read)])
        & _to_mask(pc.is_valid(text).combine_chunks()),
    )


def read_numbers(numbers: pa.ChunkedArray) -> ReadTimestamps:
    """Read integers or floats as the number of seconds, milliseconds, microseconds or nanoseconds since 1970.

    The number of digits before the decimal point decides, as in texts. NaN and infinite numbers cannot be read.
    """
    if pa.types.is_floating(numbers.type):
        is_given = pc.is_valid(numbers)
        finite = pc.if_else(pc.less(pc.abs(numbers), 1e19), numbers.cast(pa.float64()), None)
        text = pc.if_else(is_given, pc.fill_null(finite.cast(pa.decimal128(38, 6)).cast(pa.string()), "NaN"), None)
    else:
        text = numbers.cast(pa.string())
    return read_texts(text)


def check_timezone(timezone: str) -> None:
    """Raise UsageError if a time zone is not known."""
    try:
        localize(pa.chunked_array([pa.array([0], pa.timestamp("us"))]), timezone)
    except pa.ArrowException as error:
        raise UsageError(
            f"time zone {timezone!r} is not known; write it as Asia/Shanghai, Europe/Berlin, UTC or +08:00"
        ) from error


def localize(local: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    """Return timestamps without a zone, or dates, as TIMESTAMP: the time of clocks in `timezone`, or midnight there."""
    is_nanoseconds = pa.types.is_timestamp(local.type) and local.type.unit == "ns"  # these may lose digits
    local = local.cast(pa.timestamp("us"), safe=not is_nanoseconds)
    return pc.assume_timezone(local, timezone=timezone, ambiguous="earliest", nonexistent="latest").cast(TIMESTAMP)


def _read_chunk(text: pa.Array, timezone: str | None) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Return the instants [n], null where there is none; and bool [n], which texts are readable but lack an offset."""
    is_absolute = _matches(text, _ABSOLUTE)
    values = pc.if_else(pa.array(is_absolute), text, None).cast(TIMESTAMP)
    naive = np.zeros(len(text), bool)
    is_other = ~is_absolute & _to_mask(pc.is_valid(text))
    if is_other.any():
        read, naive[is_other] = _read_others(pc.utf8_trim_whitespace(text.filter(pa.array(is_other))), timezone)
        values = pc.replace_with_mask(values, pa.array(is_other), read)
    return values, naive


def _read_others(text: pa.Array, timezone: str | None) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Return the same for trimmed texts that are not in the form that Arrow's cast reads."""
    parts = pc.extract_regex(text, _WRITTEN)
    year, month, day, hour, minute, second, zone = parts.flatten()
    date = pc.binary_join_element_wise(year, pc.utf8_lpad(month, 2, "0"), pc.utf8_lpad(day, 2, "0"), "-")
    minute = pc.if_else(pc.equal(minute, ""), ":00", minute)
    second = pc.replace_substring(pc.utf8_slice_codeunits(second, 0, len(":59.999999")), ",", ".")
    clock = pc.binary_join_element_wise(pc.utf8_lpad(hour, 2, "0"), minute, second, "")
    local = pc.binary_join_element_wise(date, clock, "T")
    zone = pc.replace_substring_regex(pc.utf8_upper(zone), "UTC|GMT", "Z")
    absolute = pc.binary_join_element_wise(local, zone, "")
    absolute = pc.if_else(pa.array(_matches(absolute, _ABSOLUTE)), absolute, None)
    values = pc.coalesce(absolute.cast(TIMESTAMP), _read_number_texts(text))
    is_naive = _matches(local, _LOCAL) & _to_mask(pc.equal(zone, ""))
    if timezone is None:
        return values, is_naive
    local = pc.if_else(pa.array(is_naive), local, None).cast(pa.timestamp("us"))
    return pc.coalesce(values, localize(local, timezone)), np.zeros(len(text), bool)


def _read_number_texts(text: pa.Array) -> pa.Array:
    """Return the instants of texts that are numbers since 1970, null for all others."""
    digits, decimals = pc.extract_regex(text, _NUMBER).flatten()
    length = pc.utf8_length(digits)
    number = digits.cast(pa.int64())
    microseconds = pa.nulls(len(text), pa.int64())
    for shortest, scale in _MICROSECONDS_BY_LENGTH.items():
        has_length = pc.fill_null(pc.is_in(length, pa.array([shortest, shortest + 1], length.type)), False)
        microseconds = pc.if_else(has_length, scale(number), microseconds)
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(decimals, 6, "0"), 0, 6).cast(pa.int64())
    is_seconds = pc.less(length, 11)
    return pc.add(microseconds, pc.if_else(is_seconds, fraction, 0)).cast(TIMESTAMP)


def _matches(text: pa.Array, pattern: str) -> NDArray[np.bool_]:
    return _to_mask(pc.match_substring_regex(text, pattern))


def _to_mask(condition: pa.Array) -> NDArray[np.bool_]:
    """Convert booleans to bool [n]; null becomes False."""
    return condition.fill_null(False).to_numpy(zero_copy_only=False)
