"""How rare each word in the titles of a catalogue is: the weight of a word that two titles share.

Words are hashed into a fixed number of columns, so the statistics need no vocabulary and have one size for every
catalogue. Two words in one column count as one; at 2^18 columns that is rare and harmless.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from feature_repo.pairs.title_words import split_grams, split_words

COLUMNS = 2**18
"""Columns of the hashed words, and of the hashed runs of characters."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TitleStatistics:
    """Inverse document frequencies: ln((1 + n) / (1 + titles with the word)) for n titles, as scikit-learn's."""

    word_idf: Floats
    """[COLUMNS], of words."""
    gram_idf: Floats
    """[COLUMNS], of runs of characters."""

    @staticmethod
    def fit(titles: Sequence[str | None]) -> "TitleStatistics":
        """Count the words of n titles; None counts as a title without words."""
        return TitleStatistics(*(_compute_idf(count_columns(titles, split)) for split in (split_words, split_grams)))

    def weigh_words(self, words: list[str]) -> dict[str, float]:
        """Return the inverse document frequency of each distinct word."""
        distinct = dict.fromkeys(words)
        columns = count_columns(list(distinct), lambda word: [word] if word else [])
        return dict(zip(distinct, self.word_idf[columns.indices].tolist(), strict=True))


def count_columns(texts: Sequence[str | None], split: Callable[[str | None], list[str]]) -> sp.csr_matrix:
    """Return how many tokens of each text hash to each column: float32 CSR [n, COLUMNS].

    Args:
        texts: n texts.
        split: returns the tokens of a text, such as `split_words`.
    """
    from sklearn.feature_extraction import FeatureHasher

    if not len(texts):
        return sp.csr_matrix((0, COLUMNS), dtype=np.float32)
    hasher = FeatureHasher(COLUMNS, input_type="string", alternate_sign=False, dtype=np.float32)
    return hasher.transform(split(text) for text in texts)


def weight_columns(counts: sp.csr_matrix, idf: Floats) -> sp.csr_matrix:
    """Return TF-IDF rows of unit length, with 1 + ln(count) for the count; a row without tokens stays zero."""
    weighted = counts.copy()
    weighted.data = ((1 + np.log(weighted.data)) * idf[weighted.indices]).astype(np.float32)
    return scale_to_unit(weighted)


def scale_to_unit(rows: sp.csr_matrix) -> sp.csr_matrix:
    """Return the rows divided by their length; zero rows stay zero."""
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return (sp.diags((1 / np.where(length > 0, length, 1)).astype(np.float32)) @ rows).tocsr()


def _compute_idf(counts: sp.csr_matrix) -> Floats:
    """Return the inverse document frequency of each column."""
    documents = np.bincount(counts.indices, minlength=COLUMNS)
    return np.log((1 + counts.shape[0]) / (1 + documents)).astype(np.float32)
