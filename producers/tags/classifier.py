"""A multinomial logistic regression that can also predict its own training rows as if they were new.

The training rows are divided into folds. One classifier learns from all of them, and one for each fold from the other
folds: it predicts the rows of its fold, and calibrates the probabilities without rows set apart.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from producers.tags.calibration import fit_temperature

Classifier: TypeAlias = LogisticRegression | DummyClassifier

MIN_LOG_PROBABILITY = float(np.log(1e-6))
"""Log probability that is counted for a label that the other folds do not have."""
NO_FOLD = -1
"""The fold of a row that did not train a classifier."""


@dataclass(frozen=True)
class FoldedClassifier:
    """A classifier of all training rows, and one for each of their folds that was trained without it."""

    labels: tuple[str, ...]
    """The labels in the order of the probabilities."""
    classifier: Classifier
    """Trained on all rows."""
    fold_classifiers: dict[int, Classifier]
    """Fold to the classifier that was trained on the other folds; empty if all rows are in one fold."""
    temperature: float
    """Divides the log probabilities to calibrate them; 1 changes nothing."""

    def predict_log_probabilities(self, features: Any, fold: np.ndarray | None = None) -> np.ndarray:
        """Return log probabilities before calibration, float64 [n, labels]; -inf for a label that was not trained on.

        Args:
            features: float [n, width], dense or sparse.
            fold: int [n], the fold of a row that trained the classifier, NO_FOLD for any other row. A training row is
                predicted by the classifier that was trained without its fold, so that its probabilities are not higher
                than those of a new product. None if no row trained the classifier.
        """
        result = predict_log_probabilities(self.classifier, self.labels, features)
        for number, classifier in self.fold_classifiers.items() if fold is not None else ():
            index = np.flatnonzero(fold == number)
            if len(index):
                result[index] = predict_log_probabilities(classifier, self.labels, features[index])
        return result


def fit_folds(
    features: Any, truth: np.ndarray, fold: np.ndarray, labels: tuple[str, ...], regularisation: float
) -> FoldedClassifier:
    """Train a classifier on all rows and one without each fold, and calibrate by the predictions of the latter.

    Args:
        features: float [n, width], dense or sparse.
        truth: str [n], the true labels.
        fold: int [n], the fold of each row, at least 0.
        labels: the labels in the order of the probabilities; all of `truth` are among them.
        regularisation: LogisticRegression's C, the inverse strength of the regularization.

    Returns:
        The classifiers. The temperature is 1 if all rows are in one fold.
    """
    fold_classifiers = {
        int(number): train_classifier(features[fold != number], truth[fold != number], regularisation)
        for number in np.unique(fold)
        if (fold != number).any()
    }
    classifier = train_classifier(features, truth, regularisation)
    uncalibrated = FoldedClassifier(labels, classifier, fold_classifiers, 1.0)
    if not fold_classifiers:
        return uncalibrated
    column = np.array([labels.index(label) for label in truth], dtype=np.int64)
    temperature = fit_temperature(uncalibrated.predict_log_probabilities(features, fold), column)
    return FoldedClassifier(labels, classifier, fold_classifiers, temperature)


def train_classifier(features: Any, truth: np.ndarray, regularisation: float) -> Classifier:
    """Train a classifier on at least one row; with a single label it always predicts that."""
    if len(set(truth)) < 2:
        return DummyClassifier(strategy="prior").fit(features, truth)
    return LogisticRegression(C=regularisation, max_iter=1000, tol=1e-3).fit(features, truth)


def predict_log_probabilities(classifier: Classifier, labels: tuple[str, ...], features: Any) -> np.ndarray:
    """Return float64 [n, labels]; -inf for a label that the classifier was not trained on."""
    result = np.full((features.shape[0], len(labels)), -np.inf)
    if len(result):
        result[:, [labels.index(label) for label in classifier.classes_]] = classifier.predict_log_proba(features)
    return result
