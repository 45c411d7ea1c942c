"""Checks of input rows: parse columns, and reject each bad row with a reason.

No check repairs a value silently. Each function returns the values that it could read, and checks that mark the rows
whose values it could not.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.arrow import timestamp_texts
from feature_repo.errors import InvalidInputError
from feature_repo.offline.quarantine import MAX_VALUE, RejectedRow
from feature_repo.schema import TIMESTAMP

Mask = NDArray[np.bool_]

NO_TIMESTAMP = "timestamp is missing"
NAIVE = "timestamp has no time zone (append Z or +08:00, or give --timezone)"
UNPARSABLE = f"timestamp cannot be parsed (accepted are {timestamp_texts.ACCEPTED_FORMS})"
FUTURE = "timestamp is in the future"
TOO_EARLY = "timestamp is before the year 1"
NOT_UTF8 = "not UTF-8"

_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


@dataclass(frozen=True)
class RowCheck:
    """One possible fault of a row: what it is, in which column, and which of the n rows of a table have it."""

    column: str
    """Name of the column that is at fault."""
    reason: str
    """The fault in words, as it is written to the quarantine."""
    bad: Mask
    """bool [n]: the rows that have the fault."""


def require_columns(table: pa.Table, columns: Sequence[str], file: Path, *, allow_empty: bool = False) -> None:
    """Require that a table has at least one row, all of `columns`, and no column name twice.

    Args:
        table: the table.
        columns: names of the required columns; the table may have others.
        file: where the table came from, for messages.
        allow_empty: a table without rows is no error.

    Raises:
        InvalidInputError: a column is missing, a name occurs twice, or there are no rows. The message names the file
            and the columns.
    """
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise InvalidInputError(
            f"{file}: no column {', '.join(missing)}; expected {', '.join(columns)}; it has "
            f"{', '.join(table.column_names) or 'none'}; add or rename it"
        )
    repeated = sorted(name for name, times in Counter(table.column_names).items() if times > 1)
    if repeated:
        names = ", ".join(name or "without a name" for name in repeated)
        raise InvalidInputError(f"{file}: more than one column {names}; keep one of each name")
    if table.num_rows == 0 and not allow_empty:
        raise InvalidInputError(f"{file}: the table is empty; expected at least one row")


def null_invalid_utf8(table: pa.Table, columns: Sequence[str]) -> tuple[pa.Table, list[RowCheck]]:
    """Replace texts that are not valid UTF-8 with null.

    Args:
        table: the table.
        columns: the columns to examine, which the table must have; those that are not text, or are dictionary-encoded,
            stay as they are.

    Returns:
        The table; and a check for each column with such texts, in the order of `columns`, that marks their rows.
    """
    checks = []
    for name in columns:
        type_ = table[name].type
        if not _is_text(type_):
            continue
        try:
            table[name].validate(full=True)
        except pa.ArrowInvalid:
            bad = np.array([not _is_utf8(text) for text in table[name].cast(pa.binary()).to_pylist()])
            checks.append(RowCheck(name, NOT_UTF8, bad))
            valid = pc.if_else(pa.array(bad), pa.scalar(None, type_), table[name])
            table = table.set_column(table.column_names.index(name), name, valid)
    return table, checks


def parse_text(table: pa.Table, name: str, file: Path) -> pa.ChunkedArray:
    """Return a column as strings, unchanged: white space stays. Integers, which ids often are, become their digits.

    So do floats that are all whole numbers below 2^53; their NaN becomes null. Nulls stay null. Dictionary-encoded text
    becomes plain text.

    Args:
        table: the table.
        name: name of the column.
        file: where the table came from, for messages.

    Raises:
        InvalidInputError: the column holds neither text nor whole numbers, or text that is not UTF-8.
    """
    column = table[name]
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_floating(type_):
        # pandas writes whole numbers as floats if one of them is missing.
        number = column.cast(type_).cast(pa.float64())
        number = pc.if_else(pc.is_nan(number), None, number)
        is_whole = pc.all(pc.and_(pc.equal(pc.floor(number), number), pc.less(pc.abs(number), 2.0**53))).as_py()
        if is_whole is not False:
            return number.cast(pa.int64()).cast(pa.string())
    if not (_is_text(type_) or pa.types.is_integer(type_) or pa.types.is_null(type_)):
        raise _wrong_type(file, name, column.type, "text")
    text = column.cast(pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InvalidInputError(f"{file}: column `{name}` holds bytes that are not UTF-8; write it as UTF-8") from error
    return text


def parse_numbers(table: pa.Table, name: str, file: Path) -> pa.ChunkedArray:
    """Return a column as float64. A text that is not a number becomes infinity; nulls and NaN stay.

    The text "nan" and the empty text are not numbers. Booleans become 0 and 1. White space around a number is ignored.

    Args:
        table: the table.
        name: name of the column.
        file: where the table came from, for messages.

    Raises:
        InvalidInputError: the column holds neither numbers, booleans nor text.
    """
    column = table[name]
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    column = column.cast(type_)
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)
    if any(is_type(type_) for is_type in numeric):
        # Arrow has no cast from boolean to float64, so booleans become integers first.
        return (column.cast(pa.int8()) if pa.types.is_boolean(type_) else column).cast(pa.float64(), safe=False)
    if not _is_text(type_):
        raise _wrong_type(file, name, column.type, "numbers")
    column = column.cast(pa.string())
    is_number = pc.match_substring_regex(column, _NUMBER)
    return pc.utf8_trim_whitespace(pc.if_else(is_number, column, "inf")).cast(pa.float64())


def parse_booleans(table: pa.Table, name: str, file: Path) -> pa.ChunkedArray:
    """Return a column as booleans: 1, true, t, yes and y are True; 0, false, f, no and n are False.

    Upper and lower case and white space around a text do not matter; 1.0 and 0.0 count too. All else becomes null.

    Args:
        table: the table.
        name: name of the column.
        file: where the table came from, for messages.

    Raises:
        InvalidInputError: the column holds neither numbers, booleans nor text.
    """
    numbers = parse_numbers(table, name, file)
    result = pc.if_else(pc.equal(numbers, 1.0), True, pc.if_else(pc.equal(numbers, 0.0), False, None))
    type_ = table[name].type.value_type if pa.types.is_dictionary(table[name].type) else table[name].type
    if _is_text(type_):
        word = pc.utf8_lower(pc.utf8_trim_whitespace(table[name].cast(pa.string())))
        for value, words in ((True, ("true", "t", "yes", "y")), (False, ("false", "f", "no", "n"))):
            result = pc.if_else(pc.fill_null(pc.is_in(word, pa.array(words)), False), value, result)
    return result


def parse_timestamps(
    table: pa.Table, name: str, file: Path, now: datetime, timezone: str | None = None
) -> tuple[pa.ChunkedArray, list[RowCheck]]:
    """Return a column as UTC timestamps (TIMESTAMP), and checks that mark the rows without a usable one.

    Timestamps of any zone and unit are converted. Texts and numbers are read as `arrow/timestamp_texts.py` says.
    Usable timestamps are in [year 1, now]; Python has no earlier ones.

    Args:
        table: the table.
        name: name of the column.
        file: where the table came from, for messages.
        now: the current time, with a time zone; only later timestamps are in the future.
        timezone: the time zone of timestamps and texts that have none, and of dates, which are midnight there; None
            refuses them.

    Returns:
        The timestamps, null where they are missing, without a zone or cannot be parsed, but not where they are in the
        future or before the year 1; and the checks in order: missing (null or blank), without a zone, not parsable,
        in the future, before the year 1.

    Raises:
        InvalidInputError: the column holds timestamps or dates without a time zone and `timezone` is None, timestamps
            outside of Arrow's range, or something other than timestamps, dates, texts and numbers.
        UsageError: `timezone` is not known.
    """
    column = table[name]
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    column = column.cast(type_)
    checks = [RowCheck(name, NO_TIMESTAMP, to_mask(pc.is_null(column)))]
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        try:
            if pa.types.is_timestamp(type_) and type_.tz is not None:
                # Nanoseconds lose digits. For coarser units an unsafe cast would wrap far years around into the past.
                values = column.cast(TIMESTAMP, safe=type_.unit != "ns")
            elif timezone is not None:
                values = timestamp_texts.localize(column, timezone)
            else:
                raise InvalidInputError(
                    f"{file}: column `{name}` holds {type_} without a time zone; expected timestamps in UTC; name the "
                    "zone with --timezone, or set it when writing the file (pandas: .dt.tz_localize)"
                )
        except pa.ArrowInvalid as error:
            raise InvalidInputError(f"{file}: column `{name}` holds timestamps out of range ({error})") from error
    elif pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        values, _, unparsable = timestamp_texts.read_numbers(column)
        checks.append(RowCheck(name, UNPARSABLE, unparsable))
    elif _is_text(type_) or pa.types.is_null(type_):
        text = column.cast(pa.string())
        checks[0] = RowCheck(name, NO_TIMESTAMP, is_blank(text))
        values, naive, unparsable = timestamp_texts.read_texts(text, timezone)
        checks += [RowCheck(name, NAIVE, naive), RowCheck(name, UNPARSABLE, unparsable)]
    else:
        raise _wrong_type(file, name, column.type, "timestamps in UTC")
    year_1 = pa.scalar(datetime(1, 1, 1, tzinfo=UTC), TIMESTAMP)
    checks.append(RowCheck(name, FUTURE, to_mask(pc.greater(values, pa.scalar(now, TIMESTAMP)))))
    checks.append(RowCheck(name, TOO_EARLY, to_mask(pc.less(values, year_1))))
    return values, checks


def is_blank(text: pa.ChunkedArray) -> Mask:
    """Return bool [n]: where a text is null, empty or only white space."""
    return to_mask(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0)) | to_mask(pc.is_null(text))


def is_superseded(ids: pa.ChunkedArray, order: np.ndarray, among: Mask) -> Mask:
    """Return bool [n]: True for a row if another row with the same id comes after it in a given order.

    So of all compared rows with one id, only the last is False.

    Args:
        ids: [n] strings; may be null outside of `among`.
        order: [n] sortable values; a higher one comes after a lower one, and of equal ones the row further down.
        among: bool [n], the rows that are compared; the others are False in the result.
    """
    rows = np.flatnonzero(among)
    code = pc.index_in(ids, value_set=pc.unique(ids)).to_numpy()[rows]
    by_id = np.lexsort((rows, order[rows], code))
    same_as_next = code[by_id][:-1] == code[by_id][1:]
    result = np.zeros(len(among), dtype=bool)
    result[rows[by_id[:-1][same_as_next]]] = True
    return result


def name_rows(ids: pa.ChunkedArray, start: int = 0, lines: NDArray[np.int64] | None = None) -> pa.ChunkedArray:
    """Return a name for each row: its id; if that is blank, `line 17` of a CSV and `row 17` of another table.

    Args:
        ids: [n] strings.
        start: number of rows of the input before these, if they are a block of it. Rows are counted from 1.
        lines: int64 [n], the lines of the rows in the file (`csv_files.find_lines`); None if it has no lines.

    Returns:
        [n] strings, none of them null.
    """
    word, numbers = ("line", lines) if lines is not None else ("row", np.arange(start + 1, start + len(ids) + 1))
    names = pc.binary_join_element_wise(word, pa.array(numbers).cast(pa.string()), " ")
    return pc.if_else(pa.array(is_blank(ids)), names, ids)


def apply_checks(
    table: pa.Table, names: pa.ChunkedArray, checks: Sequence[RowCheck], among: Mask | None = None
) -> tuple[Mask, list[RejectedRow]]:
    """Apply checks in order. A row is rejected once, for the first check that it fails.

    Args:
        table: the table as it was read; rejected rows carry its values.
        names: [n] names of the rows (`name_rows`).
        checks: in order of precedence.
        among: bool [n], the rows to check; None checks all.

    Returns:
        bool [n], the rows of `among` that passed; and the rejected rows, check by check, each in the table's order.
    """
    passed = np.ones(table.num_rows, dtype=bool) if among is None else among.copy()
    rejected: list[RejectedRow] = []
    for check in checks:
        rejected += list_failures(table, names, RowCheck(check.column, check.reason, check.bad & passed))
        passed &= ~check.bad
    return passed, rejected


def list_failures(table: pa.Table, names: pa.ChunkedArray, check: RowCheck) -> list[RejectedRow]:
    """Return the rows that fail one check, in the table's order.

    Args:
        table: the table as it was read, n rows.
        names: [n] names of the rows (`name_rows`).
        check: the check; its column must be in the table.

    Returns:
        One entry for each failing row, with its value as text, cut to MAX_VALUE characters; None where it is null.
        Empty if no row fails.
    """
    rows = pa.array(np.flatnonzero(check.bad))
    values = _to_python(table[check.column].take(rows))
    return [
        RejectedRow(name, check.column, check.reason, None if value is None else str(value)[:MAX_VALUE])
        for name, value in zip(names.take(rows).to_pylist(), values, strict=True)
    ]


def to_mask(condition: pa.ChunkedArray) -> Mask:
    """Convert a boolean column to bool [n]; null becomes False."""
    return condition.fill_null(False).to_numpy()


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def _is_utf8(text: bytes | None) -> bool:
    try:
        return text is None or text.decode() is not None
    except UnicodeDecodeError:
        return False


def _to_python(values: pa.ChunkedArray) -> list[Any]:
    """Convert to Python values; timestamps that Python cannot represent become integers."""
    try:
        return values.to_pylist()
    except (OverflowError, ValueError, KeyError):  # outside of Python's calendar, or an unknown time zone
        return values.cast(pa.int64()).to_pylist()


def _wrong_type(file: Path, name: str, type_: pa.DataType, expected: str) -> InvalidInputError:
    return InvalidInputError(f"{file}: column `{name}` holds {type_}; expected {expected}; write it in that type")
