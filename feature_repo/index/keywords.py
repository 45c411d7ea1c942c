"""BM25 over the words of titles (Robertson et al. 1994), by bm25s, with the formula that Lucene uses.

    score = sum over words of ln(1 + (n - f + 0.5) / (f + 0.5)) * t / (t + K1 * (1 - B + B * length / mean length))

n documents, f of them with the word, t occurrences in this one. Documents that were added to an index later are scored
with the n, f and mean length of the main segment, so that old and new ones can be compared.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import CorruptDataError
from feature_repo.files.json_text import parse_json
from feature_repo.index.segmentation import segment_text

K1, B = 0.8, 0.4
"""Parameters of the formula: titles say a word once, so K1 hardly matters, and long titles are often stuffed."""
STATISTICS = "statistics.json"

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it reports each step of an index

Scores = NDArray[np.float32]


class KeywordIndex:
    """BM25 of the n titles of a segment."""

    def __init__(self, model: bm25s.BM25, average_length: float) -> None:
        """Wrap an index of bm25s and the mean number of words of its titles; `open_keywords` reads both."""
        self.model = model
        self.average_length = average_length
        self.documents = int(model.scores["num_docs"])

    def score(self, words: Sequence[str]) -> Scores:
        """Return the score of each title, float32 [n]; 0 without any of the words. A repeated word counts once."""
        known = [word for word in dict.fromkeys(words) if word in self.model.vocab_dict and word]
        if not known:
            return np.zeros(self.documents, np.float32)
        return self.model.get_scores(known)

    def has_word(self, word: str) -> bool:
        """Return whether a title has the word."""
        return bool(word) and word in self.model.vocab_dict

    def score_others(self, titles: Sequence[str | None], words: Sequence[str]) -> Scores:
        """Return the scores of titles that are not in the index, by its statistics, float32 [n]."""
        scores = np.zeros(len(titles), np.float32)
        weights = {word: self._weigh_word(word) for word in dict.fromkeys(words)}
        for row, title in enumerate(titles):
            counts = Counter(segment_text(title or ""))
            norm = K1 * (1 - B + B * counts.total() / max(self.average_length, 1e-9))
            scores[row] = sum(
                weight * counts[word] / (counts[word] + norm) for word, weight in weights.items() if counts[word]
            )
        return scores

    def _weigh_word(self, word: str) -> float:
        """Return the inverse document frequency of a word."""
        frequency = 0
        if self.has_word(word):
            column = self.model.vocab_dict[word]
            start, end = self.model.scores["indptr"][column : column + 2]
            frequency = int(end) - int(start)
        return float(np.log(1 + (self.documents - frequency + 0.5) / (frequency + 0.5)))


def build_keywords(titles: Sequence[str | None], *, k1: float = K1, b: float = B) -> KeywordIndex:
    """Return the index of some titles, at least one; a null title has no words."""
    words = [segment_text(title or "") for title in titles]
    model = bm25s.BM25(k1=k1, b=b)
    # bm25s refuses an index without words; this word is in no query.
    model.index([*words[:-1], words[-1] or ["\0"]], show_progress=False)
    return KeywordIndex(model, float(np.mean([len(one) for one in words])))


def write_keywords(index: KeywordIndex, folder: Path) -> None:
    """Write an index to a new folder."""
    index.model.save(str(folder))
    (folder / STATISTICS).write_text(json.dumps({"average_length": index.average_length}))


def open_keywords(folder: Path) -> KeywordIndex:
    """Open an index by mmap.

    Raises:
        CorruptDataError: a file is missing or damaged.
    """
    try:
        average_length = float(parse_json((folder / STATISTICS).read_text())["average_length"])
        return KeywordIndex(bm25s.BM25.load(str(folder), mmap=True), average_length)
    except (OSError, ValueError, KeyError) as error:
        raise CorruptDataError(
            f"{folder}: the keyword index cannot be read ({error}); run: produce index --rebuild"
        ) from error
