"""One tag predicted from one variant: fitted on the training split, calibrated on the calibration split.

The classifier is a multinomial logistic regression. Its regularization is the value of REGULARISATION_GRID with the
highest likelihood on one fold of the training split.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline

from producers.tags import split, variants
from producers.tags.calibration import apply_temperature, fit_temperature

Classifier: TypeAlias = LogisticRegression | DummyClassifier

REGULARISATION_GRID = (0.01, 0.1, 1.0)
"""Values that are tried for LogisticRegression's C, the inverse strength of the regularization."""
MIN_LOG_PROBABILITY = float(np.log(1e-6))
"""Log probability that is counted for a true label that the other folds do not have."""
NO_FOLD = -1
"""The fold of a row that did not train a tagger."""


@dataclass(frozen=True)
class Tagger:
    """A calibrated classifier of one tag, and one classifier for each fold of its training products."""

    variant: str
    """One of schema.TAG_VARIANTS: which features of a product it uses."""
    labels: tuple[str, ...]
    """The labels in the order of the probabilities."""
    features: Pipeline | FeatureUnion
    """Turns embedding rows into features; fitted on the training split."""
    classifier: Classifier
    """Trained on the whole training split."""
    fold_classifiers: dict[int, Classifier]
    """Fold to the classifier that was trained on all other folds; empty if `fit_tagger` was not asked for them."""
    temperature: float
    """Divides the log probabilities to calibrate them; 1 changes nothing."""

    def predict_probabilities(self, rows: pa.Table, fold: np.ndarray | None = None) -> np.ndarray:
        """Return calibrated probabilities, float32 [n, labels], in the order of `rows`.

        A label that the classifier was not trained on has the probability 0.

        Args:
            rows: Embedding rows with `title`, as `read_embedding_rows` returns them; there may be none.
            fold: int [n], the fold of a row that trained this tagger, NO_FOLD for any other row. A training row is
                predicted by the classifier that was trained without its fold, so that its probabilities are not higher
                than those of a new product. None if no row trained the tagger.
        """
        if not len(rows):
            return np.empty((0, len(self.labels)), np.float32)
        features = self.features.transform(rows)
        result = _predict_log_probabilities(self.classifier, self.labels, features)
        for number, classifier in self.fold_classifiers.items() if fold is not None else ():
            index = np.flatnonzero(fold == number)
            if len(index):
                result[index] = _predict_log_probabilities(classifier, self.labels, features[index])
        return apply_temperature(result, self.temperature)


def fit_tagger(variant: str, rows: pa.Table, *, values: tuple[str, ...] = (), folds: bool) -> Tagger | None:
    """Fit and calibrate the tagger of one tag.

    Args:
        variant: One of schema.TAG_VARIANTS.
        rows: Embedding rows of the products that have a label of the tag, one for each, with `title`, `value` (the
            label) and `group`. They are divided into splits here, by their groups.
        values: All values of the tag, in the order of the probabilities; none for a tag that may have any value.
        folds: Whether to fit also the classifiers that predict the training products.

    Returns:
        The tagger. It can predict `values`, or, if there are none, the labels of the training split, sorted. Its
        temperature is 1 if the calibration split is empty. None if the training split has fewer than two different
        labels.
    """
    groups, truth = rows["group"].to_pylist(), np.array(rows["value"].to_pylist(), dtype=object)
    side, fold = split.assign_splits(groups), split.assign_folds(groups)
    train, calibrate = side == split.TRAIN, side == split.CALIBRATION
    if len(set(truth[train])) < 2:
        return None
    labels = values or tuple(sorted(set(truth[train])))
    transformer = variants.make_features(variant).fit(rows.filter(pa.array(train)))
    features = transformer.transform(rows)
    columns = {label: number for number, label in enumerate(labels)}
    column = np.array([columns.get(label, -1) for label in truth], dtype=np.int64)

    regularisation = _choose_regularisation(features[train], truth[train], fold[train], labels)
    classifier = _train_classifier(features[train], truth[train], regularisation)
    fold_classifiers = {}
    for number in range(split.FOLDS) if folds else ():
        others = train & (fold != number)
        if others.any():
            fold_classifiers[number] = _train_classifier(features[others], truth[others], regularisation)
    log_probabilities = _predict_log_probabilities(classifier, labels, features[calibrate])
    temperature = fit_temperature(log_probabilities, column[calibrate])
    return Tagger(variant, labels, transformer, classifier, fold_classifiers, temperature)


def _choose_regularisation(features: Any, truth: np.ndarray, fold: np.ndarray, labels: tuple[str, ...]) -> float:
    """Return the value of REGULARISATION_GRID with the highest likelihood on the largest fold, trained on the others.

    If all rows are in one fold, return the middle value.
    """
    is_held_out = fold == np.bincount(fold).argmax()
    if is_held_out.all():
        return REGULARISATION_GRID[len(REGULARISATION_GRID) // 2]
    column = np.array([labels.index(label) for label in truth[is_held_out]])

    def loss(regularisation: float) -> float:
        classifier = _train_classifier(features[~is_held_out], truth[~is_held_out], regularisation)
        log_probabilities = _predict_log_probabilities(classifier, labels, features[is_held_out])
        return -float(np.maximum(log_probabilities[np.arange(len(column)), column], MIN_LOG_PROBABILITY).mean())

    return min(REGULARISATION_GRID, key=loss)


def _train_classifier(features: Any, truth: np.ndarray, regularisation: float) -> Classifier:
    if len(set(truth)) < 2:
        return DummyClassifier(strategy="prior").fit(features, truth)
    return LogisticRegression(C=regularisation, max_iter=1000, tol=1e-3).fit(features, truth)


def _predict_log_probabilities(classifier: Classifier, labels: tuple[str, ...], features: Any) -> np.ndarray:
    """Return float64 [n, labels]; -inf for a label that the classifier was not trained on."""
    result = np.full((features.shape[0], len(labels)), -np.inf)
    if len(result):
        result[:, [labels.index(label) for label in classifier.classes_]] = classifier.predict_log_proba(features)
    return result
