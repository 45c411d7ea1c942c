"""Find attribute values in a line of text, by a table of words: attribute, value, word.

A generated shop writes such a table beside its ground truth (`truth/words.parquet`). Producers and consumers read
titles, captions and queries by the same rule.
"""

import re
from pathlib import Path

import pyarrow.parquet as pq

from feature_repo.errors import NotFoundError

FILE = "words.parquet"

Words = dict[str, list[str]]
"""Value -> the words for it."""


def read_vocabulary(truth: Path) -> dict[str, Words]:
    """Read the table of words in the truth folder of a generated shop: attribute -> value -> words.

    Attributes, values and words are in the order in which they first occur in the table. A row that occurs twice gives
    its word twice.

    Raises:
        NotFoundError: there is no such table.
    """
    file = truth / FILE
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file; generate the shop again with `produce shop`, which writes it")
    words: dict[str, Words] = {}
    for row in pq.read_table(file).to_pylist():
        words.setdefault(row["attribute"], {}).setdefault(row["value"], []).append(row["word"])
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
        pattern = rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])" if word.isascii() else re.escape(word)
        rest, count = re.subn(pattern, "\0", rest)
        if count:
            values.add(value)
    return values
