"""One form for texts that look equal: ids, titles, labels and category paths, as columns or one at a time.

    rule                                                                 ids   texts   categories
    Unicode form NFC                                                     yes   yes     yes
    invisible characters (zero-width, BOM, controls, ...) are removed    yes   yes     yes
    blanks of all kinds at both ends are removed                         yes   yes     yes
    other blanks (NBSP, tab, ideographic, ...) become the ASCII space    yes   yes     yes
    several blanks in a row become one                                   -     yes     yes
    HTML entities that end in a semicolon (&amp; &#x27;) are decoded     -     yes     yes
    blanks around each `>` and empty segments are removed                -     -       yes

Case, width (full and half) and everything else stay. Each function returns its own results unchanged. Joiners (U+200C,
U+200D) inside an emoji or between letters of scripts that need them stay in texts. An id is nobody's prose, so `&amp;`
in it stays. A text may become empty.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from html.entities import html5
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.schema import CATEGORY_SEPARATOR

Texts = TypeVar("Texts", pa.Array, pa.ChunkedArray)

_BLANKS = (
    *((0x09, 0x0D), (0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)),
)
"""Ranges of characters that are blanks, without the ASCII space; both bounds inclusive, as in all ranges here."""
_INVISIBLE = (
    *((0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C)),
    *((0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180E), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F)),
    *((0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0xE0000, 0xE0FFF)),
)
"""Controls and characters that Unicode calls ignorable by default."""
_NOT_NFC = (
    *((0x340, 0x345), (0x374, 0x387), (0x900, 0x1FFF), (0x2126, 0x212B), (0x2329, 0x232A), (0x2ADC, 0x2ADC)),
    *((0xF900, 0xFB4E), (0x1D15E, 0x1D1C0), (0x2F800, 0x2FA1F)),
)
"""Ranges that hold all characters other than marks that NFC replaces or joins; many in them stay as they are."""
_JOINED = ((0x600, 0x1FFF), (0x2190, 0x2BFF), (0x1F000, 0x1FAFF))
"""Arabic to Mongolian, symbols and emoji: between two of these a joiner changes what is seen."""


def _python_class(*ranges: tuple[int, int]) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


def _arrow_class(*ranges: tuple[int, int]) -> str:
    return "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in ranges)


_ANY_BLANK = re.compile(f"[{_python_class(*_BLANKS)}]")
_BLANK_RUN = re.compile(f"[ {_python_class(*_BLANKS)}]+")
_ANY_INVISIBLE = re.compile(f"[{_python_class(*_INVISIBLE)}]")
_ANY_INVISIBLE_BUT_JOINERS = re.compile(f"(?![\\u200c\\u200d])[{_python_class(*_INVISIBLE)}]")
_PRINTABLE_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""The invisible characters that `str.isprintable` accepts."""
_LOOSE_JOINER = re.compile(
    f"(?<![{_python_class(*_JOINED)}])[\\u200c\\u200d]+|[\\u200c\\u200d]+(?![\\u200c\\u200d{_python_class(*_JOINED)}])"
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

# What may need a change. Arrow's regular expressions have no look-around, so this finds some texts that need none.
_ODD_ID = rf"^ | $|[{_arrow_class(*_BLANKS, *_INVISIBLE, *_NOT_NFC)}\p{{M}}]"
_ODD_TEXT = rf"{_ODD_ID}|  |&[#A-Za-z][A-Za-z0-9]*;"
_ODD_CATEGORY = rf"{_ODD_TEXT}| {CATEGORY_SEPARATOR}|{CATEGORY_SEPARATOR} |^{CATEGORY_SEPARATOR}|{CATEGORY_SEPARATOR}$"
_ODD_CATEGORY += f"|{CATEGORY_SEPARATOR}{{2}}"


@dataclass(frozen=True)
class NormalizedValues:
    """How many values of a column were normalized, with one of them as an example."""

    column: str
    """Name of the column."""
    rows: int
    """Rows whose value changed, at least 1."""
    before: str
    """The first of these values, as it came."""
    after: str
    """What it became."""

    def __str__(self) -> str:
        """Return one line; characters that cannot be seen are escaped."""
        change = f"{quote_text(self.before)} to {quote_text(self.after)}"
        return f"normalized {self.rows:,}: {self.column}, such as {change}"


def normalize_id(text: str) -> str:
    """Return an id in the one form that ids have, as the module's table says."""
    if text.isascii() and text.isprintable():
        return text.strip(" ")
    while True:
        result = unicodedata.normalize("NFC", _ANY_BLANK.sub(" ", _ANY_INVISIBLE.sub("", text))).strip(" ")
        if result == text:
            return result
        text = result  # NFC may make two characters meet that belong together


def normalize_id_list(ids: Sequence[Any]) -> Sequence[Any]:
    """Return the ids of a request, in their order, with each text normalized; other values stay as they are.

    The sequence itself is returned if no id can need a change: for some hundred ids that is known in microseconds.
    """
    try:
        joined = "".join(ids)
    except TypeError:
        return [normalize_id(value) if isinstance(value, str) else value for value in ids]
    if joined.isprintable() and " " not in joined:
        if joined.isascii():
            return ids
        if not _PRINTABLE_INVISIBLE.search(joined) and unicodedata.is_normalized("NFC", joined):
            return ids
    return [normalize_id(value) for value in ids]


def normalize_text(text: str) -> str:
    """Return a title, a brand or another text in the one form that texts have, as the module's table says."""
    while True:
        result = _ENTITY.sub(_decode_entity, text)
        result = _LOOSE_JOINER.sub("", _ANY_INVISIBLE_BUT_JOINERS.sub("", result))
        result = unicodedata.normalize("NFC", _BLANK_RUN.sub(" ", result)).strip(" ")
        if result == text:
            return result
        text = result  # such as `&amp;amp;`


def normalize_category(text: str) -> str:
    """Return a path of categories in its one form: segments as `normalize_text` gives them, none of them empty."""
    while True:
        segments = (segment.strip(" ") for segment in normalize_text(text).split(CATEGORY_SEPARATOR))
        result = CATEGORY_SEPARATOR.join(segment for segment in segments if segment)
        if result == text:
            return result
        text = result


def normalize_ids(values: Texts) -> Texts:
    """Normalize a column of ids, as `normalize_id` does each.

    Visible ASCII is checked at the speed of memory; other texts by one regular expression; only distinct texts that
    may need a change are handled one by one.

    Args:
        values: [n] texts in valid UTF-8 (string or large_string); nulls stay null. Columns of other types, such as
            integers, are returned as they are.

    Returns:
        [n] of the same type; `values` itself if no id changes.
    """
    return _normalize(values, _ODD_ID, normalize_id)


def normalize_texts(values: Texts) -> Texts:
    """Normalize a column of titles, brands or other texts, as `normalize_text` does each; else as `normalize_ids`."""
    return _normalize(values, _ODD_TEXT, normalize_text)


def normalize_categories(values: Texts) -> Texts:
    """Normalize a column of category paths, as `normalize_category` does each; else as `normalize_ids`."""
    return _normalize(values, _ODD_CATEGORY, normalize_category)


def find_changed(before: Texts, after: Texts) -> NDArray[np.bool_]:
    """Return bool [n]: where two columns of n texts differ; False where both are null."""
    if after is before:
        return np.zeros(len(before), bool)
    return np.asarray(pc.not_equal(before, after).fill_null(False))


def count_normalized(column: str, before: Texts, after: Texts) -> NormalizedValues | None:
    """Return how many values of a column were normalized, for the run's output; None if none was.

    Args:
        column: name of the column.
        before: [n] texts as they came.
        after: [n] the same texts, normalized.
    """
    rows = np.flatnonzero(find_changed(before, after))
    if not len(rows):
        return None
    first = int(rows[0])
    return NormalizedValues(column, len(rows), before[first].as_py(), after[first].as_py())


def sum_normalized(parts: Iterable[NormalizedValues | None]) -> tuple[NormalizedValues, ...]:
    """Add up the counts of each column over blocks. Columns and examples are in the order of their first block."""
    columns: dict[str, NormalizedValues] = {}
    for part in parts:
        if part is not None:
            first = columns.get(part.column)
            columns[part.column] = replace(first, rows=first.rows + part.rows) if first else part
    return tuple(columns.values())


def quote_text(text: str) -> str:
    """Return a text in quotes, with escapes for blanks other than the space, invisible characters and marks."""
    quoted = repr(text)
    return "".join(one if not unicodedata.combining(one) else ascii(one)[1:-1] for one in quoted)


def _normalize(values: Texts, odd: str, normalize: Callable[[str], str]) -> Texts:
    """Return the column with `normalize` applied to the distinct texts that the regular expression `odd` finds."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return values
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    results = [_normalize_chunk(chunk, odd, normalize) for chunk in chunks]
    if all(result is chunk for result, chunk in zip(results, chunks, strict=True)):
        return values
    return pa.chunked_array(results, values.type) if isinstance(values, pa.ChunkedArray) else results[0]


def _normalize_chunk(values: pa.Array, odd: str, normalize: Callable[[str], str]) -> pa.Array:
    if odd == _ODD_ID and _is_visible_ascii(values):
        return values
    is_odd = pc.match_substring_regex(values, odd).fill_null(False)
    if not pc.any(is_odd).as_py():
        return values
    if odd == _ODD_ID:  # columns of a fixed width pad every id, and millions of ids are all distinct
        trimmed = pc.utf8_trim(values, " ")
        if _is_visible_ascii(trimmed):
            return trimmed
    encoded = values.filter(is_odd).dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    normalized = [normalize(text) for text in texts]
    if normalized == texts:
        return values
    return pc.replace_with_mask(values, is_odd, pa.array(normalized, values.type).take(encoded.indices))


def _is_visible_ascii(values: pa.Array) -> bool:
    """Return whether all bytes of the texts are in [0x21, 0x7E]. Bytes of nulls count too."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return True
    dtype = np.int64 if pa.types.is_large_string(values.type) else np.int32
    bounds = np.frombuffer(offsets, dtype, len(values) + 1, values.offset * np.dtype(dtype).itemsize)
    used = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    return not len(used) or bool(used.min() > 0x20 and used.max() < 0x7F)


def _decode_entity(match: re.Match[str]) -> str:
    """Return what an entity stands for; the entity itself if HTML has none of that name."""
    entity = match.group()
    return html.unescape(entity) if entity[1] == "#" or entity[1:] in html5 else entity
