"""The scores of products for a sentence, part by part, and their weighted sum.

    keywords  BM25 of the title
    words     how much the picture looks like the words of the sentence, mean over the words that the word model knows
    image     cosine of the sentence and the image vector
    text      cosine of the sentence and the text vector

The parts have different scales. Each is standardized over the products that the filter leaves, so that a sum of them
can be weighted; a product without a part, such as one without a picture, gets its mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from consumers.search.sentence import Sentence
from feature_repo.errors import CorruptDataError
from feature_repo.index.nearest import Ints, Vectors
from feature_repo.index.product_index import ProductIndex, Selection
from feature_repo.index.rows import WORDS

Floats = NDArray[np.float32]

PARTS = ("keywords", "words", "image", "text")
DEFAULT_WEIGHTS: Mapping[str, float] = MappingProxyType({"keywords": 1.0, "words": 2.0, "image": 1.0, "text": 0.25})
"""Weights without labels, chosen on the demo shop; docs/how-to/search.md has the figures."""
MAX_SCORED = 100_000
"""Up to this number of products, each is scored; of more, only the best POOL of each part."""
POOL = 2_000
"""Products that each part nominates if not all are scored."""
SAMPLE = 10_000
"""Random products from which mean and deviation are computed if not all are scored."""


@dataclass(frozen=True)
class ScoredProducts:
    """n products with their scores for a sentence."""

    rows: Ints
    """[n], rows of the index."""
    parts: Floats
    """[PARTS, n], standardized; NaN where a product lacks the part."""
    words: Floats
    """[words, n], how much each picture looks like each of `known_words`, in deviations; NaN without a picture."""
    known_words: tuple[str, ...]
    """The words of the sentence that the word model knows."""

    def combine(self, weights: Mapping[str, float]) -> Floats:
        """Return the weighted sum of the parts, float32 [n]; a missing part counts as its mean, 0."""
        factors = np.array([weights.get(part, 0.0) for part in PARTS], np.float32)
        return factors @ np.nan_to_num(self.parts)


class SentenceScorer:
    """Scores the products of an index for sentences."""

    def __init__(self, index: ProductIndex) -> None:
        """Wrap an open index."""
        self.index = index

    @cached_property
    def _word_columns(self) -> dict[str, int]:
        """Each word of the word model with its line in the array WORDS; empty without a word model."""
        name = self.index.manifest.word_model
        if name is None:
            return {}
        try:
            with np.load(self.index.folder / name) as model:
                return {word: number for number, word in enumerate(model["words"].tolist())}
        except (OSError, ValueError, KeyError) as error:
            raise CorruptDataError(
                f"{self.index.folder / name}: the word model cannot be read; run: produce index --rebuild"
            ) from error

    def score(self, sentence: Sentence, vector: Vectors, selection: Selection) -> ScoredProducts:
        """Return the scored products, rows ascending: all selected ones, or the best of each part beyond MAX_SCORED.

        Args:
            sentence: the sentence.
            vector: its vector, float32 [d], of the encoder of the index.
            selection: the products that may be returned.
        """
        index = self.index
        known = tuple(word for word in sentence.words if word in self._word_columns)
        keywords = index.score_keywords(sentence.words)
        allowed = np.concatenate(
            [start + rows for start, rows in zip(index.starts[:-1], selection.rows, strict=True)] or [np.empty(0, int)]
        )
        if len(allowed) <= MAX_SCORED:
            rows = sample = allowed
        else:
            sample = np.sort(np.random.default_rng(0).choice(allowed, SAMPLE, replace=False))
            rows = self._draw_pool(known, keywords, vector, selection, allowed)
        words = index.take_lines(WORDS, [self._word_columns[word] for word in known], rows)
        parts = self._compute_parts(known, keywords, vector, rows)
        reference = parts if sample is rows else self._compute_parts(known, keywords, vector, sample)
        return ScoredProducts(rows, _standardize(parts, reference), words, known)

    def _compute_parts(self, known: tuple[str, ...], keywords: Floats, vector: Vectors, rows: Ints) -> Floats:
        """Return the parts of some rows before they are standardized, float32 [PARTS, rows]."""
        columns = [self._word_columns[word] for word in known]
        words = self.index.take_lines(WORDS, columns, rows)
        missing = np.full(len(rows), np.nan, np.float32)
        cosines = {
            name: self.index.take_vectors(f"{name}_vector", rows) @ vector
            if f"{name}_vector" in self.index.filled_vectors
            else missing
            for name in ("image", "text")
        }
        looks = words.mean(axis=0) if known else missing
        return np.stack([keywords[rows], looks, cosines["image"], cosines["text"]])

    def _draw_pool(
        self, known: tuple[str, ...], keywords: Floats, vector: Vectors, selection: Selection, allowed: Ints
    ) -> Ints:
        """Return the best rows of each part, ascending, each once."""
        pools = [
            self.index.search(name, vector, POOL, selection)[0]
            for name in ("image_vector", "text_vector")
            if name in self.index.filled_vectors
        ]
        pools.append(allowed[np.argpartition(-keywords[allowed], POOL)[:POOL]])
        if known:
            lines = self.index.take_lines(WORDS, [self._word_columns[word] for word in known], allowed)
            looks = np.nan_to_num(lines.mean(axis=0), nan=-np.inf)
            pools.append(allowed[np.argpartition(-looks, POOL)[:POOL]])
        return np.unique(np.concatenate(pools))


def _standardize(parts: Floats, reference: Floats) -> Floats:
    """Return parts [PARTS, n] minus the mean of a reference [PARTS, m], divided by its deviation.

    A part that is constant becomes 0, and one that every product lacks stays NaN.
    """
    result = np.full(parts.shape, np.nan, np.float32)
    for number, values in enumerate(reference):
        present = values[~np.isnan(values)]
        if len(present):
            deviation = present.std()
            result[number] = (parts[number] - present.mean()) / deviation if deviation > 1e-6 else 0 * parts[number]
    return result
