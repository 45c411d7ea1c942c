"""Find attribute values in a line of text, by a table of words: attribute, value, word.

A generated shop writes such a table beside its ground truth (`truth/words.parquet`); a shop of one's own writes one as
Parquet or CSV. Producers and consumers read titles, captions and queries by the same rule.
"""

import re
from pathlib import Path

import numpy as np

from feature_repo.arrow import text
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.offline import input_files, validation

FILE = "words.parquet"
COLUMNS = ("attribute", "value", "word")

Words = dict[str, list[str]]
"""Value -> the words for it."""


def read_vocabulary(truth: Path) -> dict[str, Words]:
    """Read the table of words in the truth folder of a generated shop, as `read_words` does.

    Raises:
        NotFoundError: there is no such table.
    """
    file = truth / FILE
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file; generate the shop again with `produce shop`, which writes it")
    return read_words(file)


def read_words(file: Path) -> dict[str, Words]:
    """Read a table of words: attribute -> value -> words.

    Attributes, values and words are in the order in which they first occur in the table. A row that occurs twice gives
    its word twice. Texts are normalized, values as category paths, so that they equal those of labels and tags.

    Args:
        file: Parquet or CSV with attribute, value and word.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it cannot be read, has no rows, lacks a column, or a row lacks a text.
    """
    rows = input_files.read_table(file, COLUMNS)
    validation.require_columns(rows, COLUMNS, file)
    columns = [text.normalize_texts(validation.parse_text(rows, name, file)) for name in COLUMNS]
    columns[1] = text.normalize_categories(columns[1])
    for name, column in zip(COLUMNS, columns, strict=True):
        blank = np.flatnonzero(validation.is_blank(column))
        if len(blank):
            raise InvalidInputError(f"{file}: row {blank[0] + 1} has no {name}; every row needs {', '.join(COLUMNS)}")
    words: dict[str, Words] = {}
    for attribute, value, word in zip(*(column.to_pylist() for column in columns), strict=True):
        words.setdefault(attribute, {}).setdefault(value, []).append(word)
    return words


def find_values(line: str, words: Words) -> set[str]:
    """Return the values of one attribute whose words are in a line; empty if there are none.

    Upper and lower case do not matter. ASCII words must stand alone; Chinese words may be anywhere, because Chinese has
    no spaces. A word inside a longer word of the same attribute does not count.

    Args:
        line: a title, a caption or a query.
        words: value -> its words, for one attribute; any one of the words is enough.
    """
    rest, values = line.lower(), set()
    pairs = [(word.lower(), value) for value, value_words in words.items() for word in value_words]
    for word, value in sorted(pairs, key=lambda pair: -len(pair[0])):
        if word not in rest:  # the search of most words ends here, without a pattern
            continue
        pattern = rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])" if word.isascii() else re.escape(word)
        rest, count = re.subn(pattern, "\0", rest)
        if count:
            values.add(value)
    return values
