"""How far words could bring a search: an oracle that knows what each picture shows, and reads titles as they are.

For every attribute (colour, age stage, ...) it knows how often sellers name the true value and how often a false one,
and scores a picture for a title by the likelihood of the words said and left unsaid. Titles that say little, or other
than what is so, keep it from 1: that is the ceiling of whatever reads titles.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo.errors import VitrineError
from feature_repo.schema import PRODUCT_ID
from producers.encoders.recall import from_scores

WORDS = "words.parquet"
"""In a truth folder: attribute, value, and each word that sellers use for it."""
LEAST = 1e-3
"""Lowest probability given to a word, said or left unsaid."""


def recall(
    titles: Sequence[str], products: Sequence[str], designs: NDArray[np.object_], truth: Path
) -> dict[int, float]:
    """Text to image recall of the oracle on these products, each title asking, each picture an answer.

    Raises:
        VitrineError: the truth folder has no words, or does not know a product.
    """
    known = pq.read_table(truth / "products.parquet")
    place = pc.index_in(pc.cast(list(products), "string"), value_set=known[PRODUCT_ID].combine_chunks())
    if place.null_count:
        raise VitrineError(f"{truth}: the truth does not know {place.null_count} of the products; is it of this shop?")
    score = np.zeros((len(titles), len(titles)))
    for attribute, words in _words(truth).items():
        values = sorted(words)
        said = np.array([[mentions(title, words)[value] for value in values] for title in titles])
        true = np.array([[value == shown for value in values] for shown in known[attribute].take(place).to_pylist()])
        named = np.clip(said[true].mean(), LEAST, 1 - LEAST)
        misnamed = np.clip(said[~true].mean(), LEAST, 1 - LEAST)
        weight = np.where(said, np.log(named / misnamed), np.log((1 - named) / (1 - misnamed)))
        score += weight @ true.T
    return from_scores(score, designs)


def mentions(title: str, words: dict[str, list[str]]) -> dict[str, bool]:
    """Which values of one attribute a title names; a word within a longer one of the same attribute does not count."""
    left, found = title.lower(), dict.fromkeys(words, False)
    spelled = [(word.lower(), value) for value, many in words.items() for word in many]
    spelled.sort(key=lambda pair: -len(pair[0]))
    for word, value in spelled:
        pattern = rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])" if word.isascii() else re.escape(word)
        left, times = re.subn(pattern, "\0", left)
        found[value] |= times > 0
    return found


def _words(truth: Path) -> dict[str, dict[str, list[str]]]:
    """Attribute to value to words."""
    file = truth / WORDS
    if not file.is_file():
        raise VitrineError(f"{file}: no such file; make the shop again with `produce shop`, which writes it")
    words: dict[str, dict[str, list[str]]] = {}
    for row in pq.read_table(file).to_pylist():
        words.setdefault(row["attribute"], {}).setdefault(row["value"], []).append(row["word"])
    return words
