"""From the bytes of a CSV to UTF-8 text with one separator: encoding, first lines, separator, header.

Excel writes UTF-16 with tabs, or a first line `sep=;`; exports begin with lines of comments (`#`); files from China are
often in GBK, files from Europe have semicolons. What the file says itself is used and named in a warning. An encoding
is never guessed, because every file reads as something in most encodings: a file that is not UTF-8 is refused, with
what its first such line would read as.
"""

import codecs
import csv
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow.text import normalize_id
from feature_repo.errors import InvalidInputError
from feature_repo.table_format import TableFormat

logger = logging.getLogger(__name__)

DELIMITERS = ",;\t|"
"""Separators that are looked for in a header; of several that cut it into equally many columns, the first."""
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_LIKELY_ENCODINGS = ("gbk", "big5", "cp1252")
_SHOWN = 60
"""Characters of an offending line that a message shows."""


@dataclass(frozen=True)
class CsvText:
    """A CSV as UTF-8 bytes, and where its lines are."""

    data: NDArray[np.uint8]
    """The bytes [size], without a byte order mark. Rows may hold invalid UTF-8 if no encoding was named."""
    starts: NDArray[np.int64]
    """Position of the first byte of each line after the header."""
    ends: NDArray[np.int64]
    """Position after the last byte of each of these lines, without its line end."""
    first_line: int
    """Number of the first of these lines in the file, counted from 1."""
    delimiter: str
    """The separator, one ASCII character."""
    header: bytes
    """The header line as it stands in the file."""
    columns: list[str]
    """The names in the header, without white space at both ends; a name may be blank."""

    def line(self, index: int) -> bytes:
        """Return one of the lines after the header, counted from 0, without its line end."""
        return self.data[self.starts[index] : self.ends[index]].tobytes()

    def count(self, condition: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return how many bytes of each line meet a condition on `data`, line ends included: int64 [lines]."""
        if not len(self.starts):
            return np.zeros(0, np.int64)
        return np.add.reduceat(condition.view(np.uint8), self.starts, dtype=np.int64)


def read_csv_text(file: Path, table_format: TableFormat) -> CsvText:
    """Read a file and find its lines, header and separator. Blank lines before the header are skipped.

    Raises:
        InvalidInputError: the file is not in the named encoding, or not in UTF-8 and none was named; or it is empty.
    """
    data = _decode(file, table_format.encoding)
    is_end = data == ord("\n")
    if not is_end.any() and (data == ord("\r")).any():  # lines that end as on the Macintosh of old
        is_end = data == ord("\r")
        data = np.where(is_end, np.uint8(ord("\n")), data)
    starts = np.concatenate([[0], np.flatnonzero(is_end) + 1])
    starts = starts[starts < len(data)]
    ends = np.append(starts[1:], len(data)) if len(starts) else starts
    for end in b"\n\r":
        ends = ends - ((ends > starts) & (data[ends - 1] == end))
    skipped, delimiter = 0, table_format.delimiter
    for start, end in zip(starts, ends, strict=True):
        text = data[start:end].tobytes().decode(errors="replace").strip().strip('"')
        if text.lower().startswith("sep=") and len(text) == len("sep=,") and text.isascii():
            delimiter = delimiter or text[-1]
        elif text and not text.startswith("#"):
            break
        skipped += 1
    else:
        raise InvalidInputError(f"{file}: has no header; expected a first line with the names of the columns")
    header = data[starts[skipped] : ends[skipped]].tobytes()
    delimiter, columns = _split_header(file, header, delimiter)
    if (data[: starts[skipped]] > ord(" ")).any():
        logger.warning("%s: the table begins in line %d; the lines before it were skipped", file, skipped + 1)
    if table_format.delimiter is None and delimiter != ",":
        logger.warning("%s: the columns are separated by %r", file, delimiter)
    body = slice(skipped + 1, None)
    result = CsvText(data, starts[body], ends[body], skipped + 2, delimiter, header, columns)
    if table_format.encoding is None:
        _check_utf8(file, result)
    return result


def _decode(file: Path, encoding: str | None) -> NDArray[np.uint8]:
    """Return the bytes of a file as UTF-8; unchanged if no encoding is named and no mark stands at the beginning."""
    data = np.frombuffer(file.read_bytes(), np.uint8)
    start = data[:4].tobytes()
    mark, marked = next(((mark, name) for mark, name in _MARKS if start.startswith(mark)), (b"", None))
    if encoding is None and marked is None and 5 * (data[:1000] == 0).sum() > len(data[:1000]):
        raise InvalidInputError(f"{file}: is not UTF-8 text but looks like UTF-16; give --encoding utf-16-le")
    name = codecs.lookup(encoding or marked or "utf-8").name
    if marked is not None and marked.startswith(name.removesuffix("-sig")):
        data, name = data[len(mark) :], marked
    if name in ("utf-8", "utf-8-sig"):
        return data
    if encoding is None:
        logger.warning("%s: the encoding is %s", file, name)
    try:
        return np.frombuffer(data.tobytes().decode(name).encode(), np.uint8)
    except UnicodeError as error:
        line = 1 + int((data[: getattr(error, "start", 0)] == ord("\n")).sum())
        reason = getattr(error, "reason", error)
        raise InvalidInputError(
            f"{file}: line {line:,} is not {name} ({reason}); give the encoding of the file with --encoding"
        ) from error


def _split_header(file: Path, header: bytes, delimiter: str | None) -> tuple[str, list[str]]:
    """Return the separator, which is found if it is None, and the names of the columns."""
    try:
        text = header.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file}: the header is not UTF-8: {_describe(header)}; give --encoding") from error
    splits = {each: next(csv.reader([text], delimiter=each, skipinitialspace=True)) for each in delimiter or DELIMITERS}
    found = max(splits, key=lambda each: len(splits[each]))  # the first of equals
    return found, [normalize_id(name) for name in splits[found]]


def _check_utf8(file: Path, text: CsvText) -> None:
    """Refuse a file if most of its rows are not UTF-8. If fewer are not, the checks of the rows refuse those."""
    offsets = pa.array([0, len(text.data)], pa.int64()).buffers()[1]
    try:
        pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(text.data)).validate(full=True)
        return
    except pa.ArrowInvalid:
        candidates = np.flatnonzero(text.count(text.data >= 0x80))
    invalid = [line for line in candidates.tolist() if not _is_utf8(text.line(line))]
    if not invalid:
        return
    rows = int((text.ends > text.starts).sum())
    message = (
        f"{file}: {len(invalid):,} of {rows:,} rows are not UTF-8, such as line {text.first_line + invalid[0]:,}: "
        f"{_describe(text.line(invalid[0]))}"
    )
    if 2 * len(invalid) > rows:
        raise InvalidInputError(f"{message}; give its encoding with --encoding")
    logger.warning("%s; if the file has another encoding, give --encoding", message)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _describe(line: bytes) -> str:
    """Return what a line reads as in the encodings that it is likely to have."""
    readings: list[str] = []
    for encoding in _LIKELY_ENCODINGS:
        try:
            readings.append(f"in {encoding} it reads {line.decode(encoding)[:_SHOWN]!r}")
        except UnicodeDecodeError:
            continue
    return ", ".join(readings) or repr(line[:_SHOWN])
