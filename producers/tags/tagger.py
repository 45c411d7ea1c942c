"""One tag predicted from one variant: fitted and calibrated on the training split.

The classifier is a multinomial logistic regression. Its regularization is the value of REGULARISATION_GRID with the
highest likelihood on one fold of the training split.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.pipeline import Pipeline

from producers.tags import split, variants
from producers.tags.calibration import apply_temperature
from producers.tags.classifier import (
    MIN_LOG_PROBABILITY,
    FoldedClassifier,
    fit_folds,
    predict_log_probabilities,
    train_classifier,
)

REGULARISATION_GRID = (0.01, 0.1, 1.0)
"""Values that are tried for LogisticRegression's C, the inverse strength of the regularization."""


@dataclass(frozen=True)
class Tagger:
    """A calibrated classifier of one tag, and one for each fold of its training products."""

    variant: str
    """Which features of a product it uses: one of schema.TAG_VARIANTS, but not `variants.TAGGER`."""
    features: Pipeline
    """Turns embedding rows into features; fitted on the training split."""
    classifier: FoldedClassifier
    """Trained on the training split."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the probabilities."""
        return self.classifier.labels

    def predict_log_probabilities(self, rows: pa.Table, fold: np.ndarray | None = None) -> np.ndarray:
        """Return log probabilities before calibration, float64 [n, labels]; arguments as in `predict_probabilities`."""
        if not len(rows):
            return np.empty((0, len(self.labels)))
        return self.classifier.predict_log_probabilities(self.features.transform(rows), fold)

    def predict_probabilities(self, rows: pa.Table, fold: np.ndarray | None = None) -> np.ndarray:
        """Return calibrated probabilities, float32 [n, labels], in the order of `rows`.

        A label that the classifier was not trained on has the probability 0.

        Args:
            rows: embedding rows with `title`, as `read_embedding_rows` returns them; there may be none.
            fold: int [n], the fold of a row that trained this tagger, NO_FOLD for any other row; a training row is
                predicted by the classifier of its fold. None if no row trained the tagger.
        """
        return apply_temperature(self.predict_log_probabilities(rows, fold), self.classifier.temperature)


def fit_tagger(variant: str, rows: pa.Table, *, values: tuple[str, ...] = ()) -> Tagger | None:
    """Fit and calibrate the tagger of one tag.

    Args:
        variant: one of schema.TAG_VARIANTS, but not `variants.TAGGER`, which combines others (stacking.py).
        rows: embedding rows of the products that have a label of the tag, one for each, with `title`, `value` (the
            label) and `group`. They are divided into splits here, by their groups.
        values: all values of the tag, in the order of the probabilities; none for a tag that may have any value.

    Returns:
        The tagger. It can predict `values`, or, if there are none, the labels of the training split, sorted. None if
        the training split has fewer than two different labels.
    """
    rows, fold = select_training_rows(rows)
    truth = np.array(rows["value"].to_pylist(), dtype=object)
    if len(set(truth)) < 2:
        return None
    labels = values or tuple(sorted(set(truth)))
    transformer = variants.make_features(variant).fit(rows)
    features = transformer.transform(rows)
    regularisation = _choose_regularisation(features, truth, fold, labels)
    return Tagger(variant, transformer, fit_folds(features, truth, fold, labels, regularisation))


def select_training_rows(rows: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """Return the rows of the training split, in their order, and the fold of each, int64 [n]."""
    is_training = split.assign_splits(rows["group"].to_pylist()) == split.TRAIN
    rows = rows.filter(pa.array(is_training, pa.bool_()))
    return rows, split.assign_folds(rows["group"].to_pylist())


def _choose_regularisation(features: Any, truth: np.ndarray, fold: np.ndarray, labels: tuple[str, ...]) -> float:
    """Return the value of REGULARISATION_GRID with the highest likelihood on the largest fold, trained on the others.

    If all rows are in one fold, return the middle value.
    """
    is_held_out = fold == np.bincount(fold).argmax()
    if is_held_out.all():
        return REGULARISATION_GRID[len(REGULARISATION_GRID) // 2]
    column = np.array([labels.index(label) for label in truth[is_held_out]])

    def loss(regularisation: float) -> float:
        classifier = train_classifier(features[~is_held_out], truth[~is_held_out], regularisation)
        log_probabilities = predict_log_probabilities(classifier, labels, features[is_held_out])
        return -float(np.maximum(log_probabilities[np.arange(len(column)), column], MIN_LOG_PROBABILITY).mean())

    return min(REGULARISATION_GRID, key=loss)
