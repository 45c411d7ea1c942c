"""Reads a CSV. A row that does not fit the header is refused by its line number, and the others are read.

A record is well formed if it has as many fields as the header and each quote either encloses a field, is doubled within
one, or stands inside an unquoted field (`12" doll`). Lines without a quote are checked by counting separators, lines
with well-placed quotes by one regular expression, all others by Python's csv module. A record with an open quote is
refused with its first line only, and reading goes on with the next line: Arrow alone would take everything up to the
next quote, or to the end of the file, into one field. Arrow then reads what is left. Spaces between a separator and a
quote are dropped.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from feature_repo.offline.csv_text import CsvText, read_csv_text
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.table_format import TableFormat

WRONG_FIELDS = "row has another number of fields than the header"
BAD_QUOTE = "row has an open or misplaced quote"
REPEATED_HEADER = "row repeats the header"
WHOLE_ROW = "(row)"
"""Stands for the column of a fault that concerns the whole row."""
MAX_LINES = 1_000
"""Lines of the longest record that is read; a quote that is open for longer is a mistake."""

FIRST_LINES = b"first_lines"
"""Key of a table's metadata: pairs of a row and its line in the file, both int64, wherever lines and rows part."""

MAX_REPEATS = 1_000
"""How often Arrow's regular expressions repeat a group at most."""


def read_csv(
    file: Path, table_format: TableFormat, text_columns: frozenset[str], *, as_bytes: bool = False
) -> tuple[pa.Table, list[RejectedRow]]:
    """Read a CSV into memory. A table without rows is no error.

    Args:
        file: the file.
        table_format: what is known about it; its columns are renamed.
        text_columns: columns, by our names, that are read as text; the types of others are inferred. An empty field is
            null.
        as_bytes: return the text columns as binary, which may hold invalid UTF-8.

    Returns:
        The rows that fit the header, in their order, without blank lines; and the others, in their order, each named
        `line 17`, the line of the file, with its text. `find_lines` returns the lines of the first.

    Raises:
        InvalidInputError: the encoding is not known, or there is no header.
        pa.ArrowInvalid: a value cannot be converted, such as invalid UTF-8 if not `as_bytes`.
    """
    text = read_csv_text(file, table_format)
    records, refused = _select_records(text)
    names = table_format.rename(text.columns)
    text_type = pa.binary() if as_bytes else pa.string()
    types = {name: text_type for name in names if name in text_columns}
    if not len(records.lines):
        return pa.table([pa.array([], types.get(name, pa.null())) for name in names], names=names), refused
    table = pyarrow.csv.read_csv(
        pa.BufferReader(pa.py_buffer(records.data)),
        read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=max(1 << 20, 2 * records.longest)),
        parse_options=pyarrow.csv.ParseOptions(delimiter=text.delimiter, newlines_in_values=records.span_lines),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""]),
    )
    return table.replace_schema_metadata({FIRST_LINES: _encode_lines(records.lines)}), refused


def find_lines(table: pa.Table, start: int = 0) -> NDArray[np.int64] | None:
    """Return the first line in the file, from 1, of each row of a table that `read_csv` returned, or of its block.

    None for a table from elsewhere.

    Args:
        table: n rows that follow each other in the file, with the metadata of the table.
        start: number of rows of the file's table before these.
    """
    encoded = (table.schema.metadata or {}).get(FIRST_LINES)
    if encoded is None:
        return None
    first_rows, lines = np.frombuffer(encoded, np.int64).reshape(2, -1)
    rows = np.arange(start, start + len(table))
    run = np.searchsorted(first_rows, rows, side="right") - 1
    return lines[run] + rows - first_rows[run]


def _encode_lines(lines: NDArray[np.int64]) -> bytes:
    """Return runs of rows in neighbouring lines: the first row of each, then the line of that row."""
    first_rows = np.flatnonzero(np.diff(lines, prepend=lines[0] - 2) != 1)
    return np.stack([first_rows, lines[first_rows]]).astype(np.int64).tobytes()


class _Records(NamedTuple):
    """The well-formed records of a file."""

    data: bytes | memoryview
    """Their bytes, each with its line end; empty lines may be among them."""
    longest: int
    """The largest number of bytes of one of them."""
    span_lines: bool
    """Whether one of them has more than one line, or a carriage return, which Arrow takes for a line end."""
    lines: NDArray[np.int64]
    """The first line in the file, from 1, of each that is not an empty line."""


def _select_records(text: CsvText) -> tuple[_Records, list[RejectedRow]]:
    """Return the well-formed records, and the other lines that are not blank."""
    is_blank, is_good, is_repeated, is_suspect = _classify(text)
    is_consumed = np.zeros(len(text.starts), bool)
    rewritten: dict[int, bytes] = {}
    misplaced: set[int] = set()
    for line in np.flatnonzero(is_suspect).tolist():
        if is_consumed[line]:
            continue
        fields, lines = _read_record(text, line)
        if lines != 1 and fields is None:
            misplaced.add(line)
        elif fields is not None:
            rewritten[line] = _write_record(fields, text.delimiter)
            is_consumed[line : line + lines] = True
    reasons = {
        line: REPEATED_HEADER if is_repeated[line] else BAD_QUOTE if line in misplaced else WRONG_FIELDS
        for line in np.flatnonzero(~(is_blank | is_good | is_consumed)).tolist()
    }
    refused = [
        RejectedRow(f"line {text.first_line + line}", WHOLE_ROW, reason, text.line(line).decode(errors="replace"))
        for line, reason in reasons.items()
    ]
    longest = max([int((text.ends - text.starts).max(initial=0)) + 2, *map(len, rewritten.values())])
    is_taken = is_good & ~is_consumed
    is_taken[list(rewritten)] = True
    numbers = text.first_line + np.flatnonzero(is_taken)
    if (is_good | (text.ends == text.starts)).all():
        start = text.starts[0] if len(text.starts) else len(text.data)
        return _Records(text.data[start:].data, longest, False, numbers), refused
    data = _join(text, is_good & ~is_consumed, rewritten)
    span_lines = len(rewritten) < is_consumed.sum() or any(b"\r" in record for record in rewritten.values())
    return _Records(data, longest, span_lines, numbers), refused


def _classify(text: CsvText) -> tuple[NDArray[np.bool_], ...]:
    """Return, as bool [lines], which lines are blank, well formed, a repeated header, or must be read one by one.

    A line that is none of these has another number of fields than the header.
    """
    data, separator = text.data, ord(text.delimiter)
    is_blank = text.count((data > ord(" ")) & (data != separator)) == 0
    is_repeated = _find_equal(text, text.header)
    has_quote = text.count(data == ord('"')) > 0
    is_return = data == ord("\r")
    is_return[:-1] &= data[1:] != ord("\n")
    has_return = text.count(is_return) > 0  # within a line, where Arrow would begin a new one
    is_suspect = (has_quote | has_return) & ~is_blank & ~is_repeated
    has_all_fields = text.count(data == separator) == len(text.columns) - 1
    is_good = has_all_fields & ~is_suspect & ~is_blank & ~is_repeated
    quoted = np.flatnonzero(is_suspect & ~has_return)
    well_formed = quoted[_match_lines(text, quoted)]
    is_good[well_formed], is_suspect[well_formed] = True, False
    return is_blank, is_good, is_repeated, is_suspect


def _find_equal(text: CsvText, line: bytes) -> NDArray[np.bool_]:
    """Return which lines are equal to one."""
    equal = np.flatnonzero(text.ends - text.starts == len(line))
    for offset, byte in enumerate(line):
        equal = equal[text.data[text.starts[equal] + offset] == byte]
    result = np.zeros(len(text.starts), bool)
    result[equal] = True
    return result


def _match_lines(text: CsvText, lines: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of some lines are records with well-placed quotes and as many fields as the header."""
    if not len(lines) or len(text.columns) > MAX_REPEATS:
        return np.zeros(len(lines), bool)
    separator = re.escape(text.delimiter)
    field = rf'(?:[^"{separator}]*|"(?:[^"]|"")*")'
    pattern = rf"^{field}(?:{separator}{field}){{{len(text.columns) - 1}}}\r?\n?$"
    offsets = pa.array(np.append(text.starts, len(text.data)), pa.int64()).buffers()[1]
    contents = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(text.starts), [None, offsets, pa.py_buffer(text.data)]
    )
    return pc.match_substring_regex(contents.take(pa.array(lines)), pattern).to_numpy(zero_copy_only=False)


def _read_record(text: CsvText, line: int) -> tuple[list[str] | None, int]:
    """Read the record that begins at a line: its fields, and its number of lines, 0 if a quote is misplaced.

    The fields are None if there are not as many as in the header, or if a quote is misplaced.
    """
    used = 0

    def read_lines() -> Iterator[str]:
        nonlocal used
        for number in range(line, min(line + MAX_LINES, len(text.starts))):
            used += 1
            yield text.line(number).decode(errors="surrogateescape") + "\n"

    try:
        fields = next(csv.reader(read_lines(), delimiter=text.delimiter, strict=True, skipinitialspace=True))
    except csv.Error:
        return None, 0
    return (fields if len(fields) == len(text.columns) else None), used


def _write_record(fields: list[str], delimiter: str) -> bytes:
    stream = io.StringIO()
    # Every field is quoted: Python 3.11 leaves one with a carriage return as it is, where Arrow would begin a new line.
    csv.writer(stream, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(fields)
    return stream.getvalue().encode(errors="surrogateescape")


def _join(text: CsvText, is_good: NDArray[np.bool_], rewritten: dict[int, bytes]) -> bytes:
    """Return the good lines and the rewritten records, in their order. Neighbouring good lines are copied at once."""
    pieces: list[tuple[int, bytes]] = list(rewritten.items())
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_good, [False]])))
    for first, after in edges.reshape(-1, 2).tolist():
        pieces.append((first, text.data[text.starts[first] : text.ends[after - 1]].tobytes() + b"\n"))
    return b"".join(piece for _, piece in sorted(pieces, key=lambda piece: piece[0]))
