"""Write a table as CSV that a spreadsheet shows as text: a value of another's making must not become a formula."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from feature_repo.files.atomic_write import replace_atomically

_FORMULA = r"^'*\s*[=+\-@\t\r]"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def write_csv(table: pa.Table, file: Path) -> None:
    """Write a table; the file is replaced when all of it is written.

    A text that a spreadsheet would take for a formula, because it begins with = + - @, a tab or a carriage return, gets
    an apostrophe in front, unless it is a number; so does such a text with apostrophes in front. Nulls are empty
    fields; timestamps are ISO 8601.

    Args:
        table: columns of text, numbers and timestamps.
        file: the CSV to write; missing parent folders are created.

    Raises:
        OSError: the file cannot be written.
    """
    columns = [_escape_formulas(column) if pa.types.is_string(column.type) else column for column in table.columns]
    with replace_atomically(file) as unfinished:
        pyarrow.csv.write_csv(pa.table(columns, names=table.column_names), unfinished)


def restore_text(text: str) -> str:
    """Return a text as it was before `write_csv` escaped it."""
    return text[1:] if text.startswith("'") and re.match(_FORMULA, text[1:]) else text


def _escape_formulas(column: pa.ChunkedArray) -> pa.ChunkedArray:
    is_formula = pc.and_(
        pc.match_substring_regex(column, _FORMULA), pc.invert(pc.match_substring_regex(column, _NUMBER))
    )
    return pc.if_else(is_formula, pc.binary_join_element_wise("'", column, ""), column)
