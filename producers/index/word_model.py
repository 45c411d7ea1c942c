"""Scores how much a picture looks like each word, learned from titles without labels.

For each frequent word a ridge regression predicts, from image vector and texture, whether the title has the word. No
product is scored by a model that was fitted on its own title: products are divided into FOLDS, and each fold is scored
by the model of the others. A word that a title is stuffed with therefore does not raise the score of its picture.
Synonyms occur in different titles of similar pictures; keeping only RANK directions of the scores joins them.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.index.segmentation import segment_text
from producers.index.texture import TextureDictionary

Floats = NDArray[np.float32]

FOLDS = 5
"""Parts of the products; each is scored by the model of the others."""
RANK = 64
"""Directions of the scores that are kept; on a generated shop 48 to 96 gave the same results within 0.02 AP."""
PENALTY = 1 / 8
"""Ridge penalty for each training product, on features of variance 1."""
MIN_TITLES = 10
MIN_SHARE, MAX_SHARE = 0.002, 0.5
"""Words of fewer titles than MIN_TITLES or MIN_SHARE, or of more than MAX_SHARE, are left out."""
MAX_WORDS = 2_000
"""Words that are scored at most, the most frequent ones."""
MAX_TRAINING = 50_000
"""About the number of products that the model is fitted on at most."""
MIN_PRODUCTS = 200
"""Minimum number of products with a picture; with fewer there is no model."""


@dataclass(frozen=True)
class WordModel:
    """Scores of pictures for words, linear in image vector and texture."""

    words: tuple[str, ...]
    dictionary: TextureDictionary
    mean: Floats
    """[features]"""
    deviation: Floats
    """[features]"""
    weights: Floats
    """[features, words], the mean of the folds' models."""
    offset: Floats
    """[words]: subtracted from a score; and `scale` [words] divides it, so that scores have mean 0 and variance 1."""
    scale: Floats

    def score(self, vectors: Floats, textures: NDArray[np.float16]) -> NDArray[np.float16]:
        """Return the scores of n pictures for each word, float16 [words, n]; NaN without a picture.

        Args:
            vectors: float32 [n, d], image vectors; NaN without one.
            textures: [n, width], NaN without one.
        """
        features = (_join_features(vectors, textures) - self.mean) / self.deviation
        return ((features @ self.weights - self.offset) / self.scale).T.astype(np.float16)

    def to_bytes(self) -> bytes:
        """Return the model as the bytes of a NumPy archive, for `from_bytes`. Its array `words` has the words."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            words=np.array(self.words),
            patch_mean=self.dictionary.mean,
            patch_whitening=self.dictionary.whitening,
            patch_entries=self.dictionary.entries,
            mean=self.mean,
            deviation=self.deviation,
            weights=self.weights,
            offset=self.offset,
            scale=self.scale,
        )
        return buffer.getvalue()

    @staticmethod
    def from_bytes(content: bytes) -> "WordModel":
        """Return the model that `to_bytes` wrote."""
        with np.load(io.BytesIO(content)) as arrays:
            dictionary = TextureDictionary(*(arrays[f"patch_{name}"] for name in ("mean", "whitening", "entries")))
            numbers = (arrays[name] for name in ("mean", "deviation", "weights", "offset", "scale"))
            return WordModel(tuple(arrays["words"].tolist()), dictionary, *numbers)


def fit_word_model(
    product_ids: Sequence[str],
    titles: Sequence[str | None],
    vectors: Floats,
    textures: NDArray[np.float16],
    dictionary: TextureDictionary,
) -> tuple[WordModel, NDArray[np.float16]] | None:
    """Return a model, and the scores of all products by models that did not learn from them, float16 [words, n].

    None if fewer than MIN_PRODUCTS have a picture, or no word is frequent enough. A score is NaN without a picture.

    Args:
        product_ids: [n]; they decide the folds.
        titles: [n].
        vectors: float32 [n, d], image vectors; NaN without one.
        textures: [n, width], NaN without one.
        dictionary: what describes the texture.
    """
    features = _join_features(vectors, textures)
    usable = np.flatnonzero(~np.isnan(features).any(axis=1))
    folds = np.array([hashlib.blake2b(one.encode(), digest_size=1).digest()[0] % FOLDS for one in product_ids])
    if len(usable) < MIN_PRODUCTS:
        return None
    training = usable[: len(usable) : max(1, len(usable) // MAX_TRAINING)]
    segmented = {int(row): set(segment_text(titles[row] or "")) for row in training}
    words = choose_words(list(segmented.values()))
    if not words:
        return None
    column = {word: number for number, word in enumerate(words)}
    targets = np.zeros((len(training), len(words)), np.float32)
    for position, row in enumerate(training.tolist()):
        targets[position, [column[word] for word in segmented[row] if word in column]] = 1
    targets -= targets.mean(0)
    mean, deviation = features[training].mean(0), features[training].std(0) + np.float32(1e-6)
    scaled = (features - mean) / deviation
    models = [
        _fit_ridge(scaled[training[folds[training] != fold]], targets[folds[training] != fold]) for fold in range(FOLDS)
    ]
    weights = np.mean(models, axis=0, dtype=np.float32)
    axes = _find_axes(scaled[training] @ weights)
    scores = np.full((len(product_ids), len(words)), np.nan, np.float32)
    for fold in range(FOLDS):
        rows = usable[folds[usable] == fold]
        scores[rows] = scaled[rows] @ (models[fold] @ axes @ axes.T)
    offset, scale = scores[usable].mean(0), scores[usable].std(0) + np.float32(1e-9)
    joined = (weights @ axes @ axes.T).astype(np.float32)
    model = WordModel(tuple(words), dictionary, mean, deviation, joined, offset, scale)
    return model, ((scores - offset) / scale).T.astype(np.float16)


def _join_features(vectors: Floats, textures: NDArray[np.float16]) -> Floats:
    return np.concatenate([vectors, textures.astype(np.float32)], axis=1)


def choose_words(titles: Sequence[set[str]]) -> list[str]:
    """Return the words that are frequent enough, the most frequent first.

    Args:
        titles: the words of each title.
    """
    counts = Counter(word for title in titles for word in title)
    fewest, most = max(MIN_TITLES, MIN_SHARE * len(titles)), MAX_SHARE * len(titles)
    frequent = [(-count, word) for word, count in counts.items() if fewest <= count <= most]
    return [word for _, word in sorted(frequent)[:MAX_WORDS]]


def _fit_ridge(features: Floats, targets: Floats) -> Floats:
    """Return the weights [features, words] of a ridge regression without intercept."""
    products = features.T @ features
    products[np.diag_indices_from(products)] += PENALTY * len(features)
    return np.linalg.solve(products, features.T @ targets).astype(np.float32)


def _find_axes(scores: Floats) -> Floats:
    """Return the directions [words, rank] in which the scores of the pictures vary most."""
    values, axes = np.linalg.eigh(scores.T @ scores)
    return axes[:, np.argsort(-values)[:RANK]].astype(np.float32)
