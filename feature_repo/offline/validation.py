"""Checks of tables that others hand in: a bad table is an error, a bad row is refused with its reason.

A check never repairs in silence: each function returns the values it could read and says by row why not the others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.errors import VitrineError
from feature_repo.offline.quarantine import MAX_VALUE, RejectedRow
from feature_repo.schema import TIMESTAMP

NO_TIMESTAMP = "timestamp is missing"
NAIVE = "timestamp has no time zone"
UNPARSABLE = "timestamp cannot be parsed"
FUTURE = "timestamp is in the future"
TOO_EARLY = "timestamp is before the year 1"
NOT_UTF8 = "not UTF-8"

_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?"
_ZONE = r"Z|[+-](?:[01]\d|2[0-3]):?[0-5]\d"
_ISO_8601 = rf"^(?P<date>\d{{4}}-\d{{2}}-\d{{2}})(?:[T ]{_TIME} ?(?P<zone>{_ZONE})?)?$"
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong with a row."""

    column: str
    reason: str
    bad: np.ndarray
    """bool [rows]: where it is wrong."""


def require_columns(table: pa.Table, columns: Sequence[str], file: Path) -> None:
    """See that a table has rows and all of `columns`, and no column twice.

    Raises:
        VitrineError: it has not; names the file, what is missing and what is there.
    """
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise VitrineError(
            f"{file}: no column {', '.join(missing)}; wanted {', '.join(columns)}; it has "
            f"{', '.join(table.column_names) or 'none'}; add or rename it"
        )
    twice = sorted(name for name, times in Counter(table.column_names).items() if times > 1)
    if twice:
        names = ", ".join(name or "without a name" for name in twice)
        raise VitrineError(f"{file}: more than one column {names}; keep one of each name")
    if table.num_rows == 0:
        raise VitrineError(f"{file}: the table is empty; wanted at least one row")


def null_invalid_utf8(table: pa.Table, columns: Sequence[str]) -> tuple[pa.Table, list[Check]]:
    """The table with null for each text that is not UTF-8, and those rows by column; other types are left alone."""
    found = []
    for name in columns:
        held = table[name].type
        kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        if not any(check(held) for check in kinds):
            continue
        try:
            table[name].validate(full=True)
        except pa.ArrowInvalid:
            bad = np.array([not _is_utf8(text) for text in table[name].cast(pa.binary()).to_pylist()])
            found.append(Check(name, NOT_UTF8, bad))
            mended = pc.if_else(pa.array(bad), pa.scalar(None, held), table[name])
            table = table.set_column(table.column_names.index(name), name, mended)
    return table, found


def _is_utf8(text: bytes | None) -> bool:
    try:
        return text is None or text.decode() is not None
    except UnicodeDecodeError:
        return False


def parse_text(table: pa.Table, name: str, file: Path) -> pa.ChunkedArray:
    """A column as strings; whole numbers (ids often are) become their digits, nulls stay.

    Raises:
        VitrineError: the column holds neither text nor whole numbers, or bytes that are not UTF-8.
    """
    column = table[name]
    held = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    fits = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_integer,
        pa.types.is_null,
    )
    if not any(check(held) for check in fits):
        raise _wrong_type(file, name, column.type, "text")
    text = column.cast(pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid as error:
        raise VitrineError(f"{file}: column `{name}` holds bytes that are not UTF-8; write it as UTF-8") from error
    return text


def parse_numbers(table: pa.Table, name: str, file: Path) -> pa.ChunkedArray:
    """A column as float64, infinite where a text is no number, nulls and NaN stay.

    Raises:
        VitrineError: the column holds neither numbers nor text.
    """
    column = table[name]
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)
    if any(check(column.type) for check in kinds):
        # Arrow knows no way from booleans to float64 but through a number.
        return (column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column).cast(pa.float64(), safe=False)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise _wrong_type(file, name, column.type, "numbers")
    readable = pc.match_substring_regex(column, _NUMBER)
    return pc.utf8_trim_whitespace(pc.if_else(readable, column, "inf")).cast(pa.float64())


def parse_timestamps(table: pa.Table, name: str, file: Path, now: datetime) -> tuple[pa.ChunkedArray, list[Check]]:
    """A column as instants (TIMESTAMP), and the rows without a usable one.

    Timestamps of any zone and unit are converted; texts are ISO 8601 with a zone, digits beyond microseconds cut.
    A value is null where a check says missing, naive or unparsable; `[year 1, now]` is the past, later is the future,
    and what is earlier no calendar of Python's holds.

    Raises:
        VitrineError: the column holds neither timestamps with a time zone nor text.
    """
    column = table[name]
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        raise VitrineError(
            f"{file}: column `{name}` holds {column.type} without a time zone; wanted instants in UTC; "
            "say the zone when writing it (pandas: .dt.tz_localize)"
        )
    checks = [Check(name, NO_TIMESTAMP, to_mask(pc.is_null(column)))]
    if pa.types.is_timestamp(column.type):
        try:
            # Nanoseconds lose digits; of the coarser units an unsafe cast would let years to come wrap into the past.
            values = column.cast(TIMESTAMP, safe=column.type.unit != "ns")
        except pa.ArrowInvalid as error:
            raise VitrineError(f"{file}: column `{name}` holds instants out of range ({error})") from error
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_null(column.type):
        values, naive, unparsable = _parse(column.cast(pa.string()))
        checks += [Check(name, NAIVE, naive), Check(name, UNPARSABLE, unparsable)]
    else:
        raise _wrong_type(file, name, column.type, "timestamps in UTC")
    checks.append(Check(name, FUTURE, to_mask(pc.greater(values, pa.scalar(now, TIMESTAMP)))))
    checks.append(
        Check(name, TOO_EARLY, to_mask(pc.less(values, pa.scalar(datetime.min, pa.timestamp("us")).cast(TIMESTAMP))))
    )
    return values, checks


def _parse(text: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray, np.ndarray]:
    """Instants of ISO 8601 texts, and where there is no zone, and where it is no timestamp at all."""
    parts = pc.extract_regex(text, _ISO_8601)
    date = pc.struct_field(parts, "date")
    # strptime takes the 30th of February for the 1st of March: a real date is written back as it came.
    day = pc.strptime(date, "%Y-%m-%d", "s", error_is_null=True)
    real = to_mask(pc.equal(pc.strftime(day, "%Y-%m-%d"), date))
    zoned = to_mask(pc.not_equal(pc.struct_field(parts, "zone"), ""))
    compact = pc.replace_substring_regex(pc.replace_substring(text, " +", "+"), r"(\.\d{6})\d{1,3}", r"\1")
    compact = pc.replace_substring_regex(compact, r" ([Z-])", r"\1")
    values = pc.if_else(pa.array(real & zoned), compact, None).cast(TIMESTAMP)
    return values, real & ~zoned, ~real & to_mask(pc.is_valid(text))


def is_blank(text: pa.ChunkedArray) -> np.ndarray:
    """bool [rows]: null, empty, or white space alone."""
    return to_mask(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0)) | to_mask(pc.is_null(text))


def is_superseded(ids: pa.ChunkedArray, order: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Where another row of the same id comes after: of each id among `among`, only the last in `order` is not.

    Args:
        ids: any strings; rows that are not in `among` may be null.
        order: [rows] sortable; of equals the later row is the last.
        among: bool [rows]; the others neither displace nor are displaced.
    """
    rows = np.flatnonzero(among)
    code = pc.index_in(ids, value_set=pc.unique(ids)).to_numpy()[rows]
    by_id = np.lexsort((rows, order[rows], code))
    same_as_next = code[by_id][:-1] == code[by_id][1:]
    result = np.zeros(len(among), dtype=bool)
    result[rows[by_id[:-1][same_as_next]]] = True
    return result


def name_rows(ids: pa.ChunkedArray, start: int = 0) -> pa.ChunkedArray:
    """What a row is called where it is refused: its id, or `row 17` (counted from 1) where it has none.

    Args:
        start: rows of the table that come before these.
    """
    numbers = pa.array(np.arange(start + 1, start + len(ids) + 1)).cast(pa.string())
    return pc.if_else(pa.array(is_blank(ids)), pc.binary_join_element_wise("row", numbers, " "), ids)


def apply_checks(
    table: pa.Table, names: pa.ChunkedArray, checks: Sequence[Check], among: np.ndarray | None = None
) -> tuple[np.ndarray, list[RejectedRow]]:
    """Apply checks in their order; a row is refused once, for the first that it fails.

    Args:
        table: as it came; the refused carry its values.
        names: what each row is called.
        checks: in the order in which they count.
        among: bool [rows] still to be judged; all where None.

    Returns:
        bool [rows] of those that passed, and the refused.
    """
    passed = np.ones(table.num_rows, dtype=bool) if among is None else among.copy()
    refused: list[RejectedRow] = []
    for check in checks:
        refused += list_failures(table, names, Check(check.column, check.reason, check.bad & passed))
        passed &= ~check.bad
    return passed, refused


def list_failures(table: pa.Table, names: pa.ChunkedArray, check: Check) -> list[RejectedRow]:
    """The rows that fail one check, with the value as it came."""
    rows = pa.array(np.flatnonzero(check.bad))
    values = _as_they_came(table[check.column].take(rows))
    return [
        RejectedRow(name, check.column, check.reason, None if value is None else str(value)[:MAX_VALUE])
        for name, value in zip(names.take(rows).to_pylist(), values, strict=True)
    ]


def _as_they_came(values: pa.ChunkedArray) -> list[Any]:
    """Python's values; of instants that Python cannot hold the integers."""
    try:
        return values.to_pylist()
    except (OverflowError, ValueError, KeyError):  # beyond its calendar, or of a time zone that nobody knows
        return values.cast(pa.int64()).to_pylist()


def to_mask(condition: pa.ChunkedArray) -> np.ndarray:
    """bool [rows], False where the condition is null."""
    return condition.fill_null(False).to_numpy()


def _wrong_type(file: Path, name: str, held: pa.DataType, wanted: str) -> VitrineError:
    return VitrineError(f"{file}: column `{name}` holds {held}; wanted {wanted}; write it in that type")
