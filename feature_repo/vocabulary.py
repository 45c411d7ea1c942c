"""Which values of an attribute a line of text names, by a table of words: attribute, value, word.

A generated shop writes such a table beside its truth (`truth/words.parquet`); titles, captions and queries are read by
the same rule on both sides.
"""

import re
from pathlib import Path

import pyarrow.parquet as pq

from feature_repo.errors import VitrineError

FILE = "words.parquet"

Words = dict[str, list[str]]
"""Value to the words for it."""


def read_vocabulary(truth: Path) -> dict[str, Words]:
    """Attribute to value to words, of the truth folder of a generated shop.

    Raises:
        VitrineError: there is no such table.
    """
    file = truth / FILE
    if not file.is_file():
        raise VitrineError(f"{file}: no such file; make the shop again with `produce shop`, which writes it")
    words: dict[str, Words] = {}
    for row in pq.read_table(file).to_pylist():
        words.setdefault(row["attribute"], {}).setdefault(row["value"], []).append(row["word"])
    return words


def find_values(line: str, words: Words) -> set[str]:
    """The values that a line names; a word within a longer one of the same attribute does not count.

    Latin words count whole; Chinese runs on, so its words count wherever they stand.
    """
    left, found = line.lower(), set()
    spelled = [(word.lower(), value) for value, many in words.items() for word in many]
    for word, value in sorted(spelled, key=lambda pair: -len(pair[0])):
        pattern = rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])" if word.isascii() else re.escape(word)
        left, times = re.subn(pattern, "\0", left)
        if times:
            found.add(value)
    return found
