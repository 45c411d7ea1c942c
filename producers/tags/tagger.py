"""One tag from one variant: fitted on the training split, calibrated on the calibration split.

The classifier is a multinomial logistic regression whose regularisation is the one of GRID that is most likely right
about one fold of the training split.
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
from producers.tags.labels import TAG_VALUES

Classifier: TypeAlias = LogisticRegression | DummyClassifier

REGULARISATION_GRID = (0.01, 0.1, 1.0)
"""Values of LogisticRegression's C."""
MIN_LOG_PROBABILITY = float(np.log(1e-6))
"""What a truth costs that the other folds do not hold."""
NO_FOLD = -1


@dataclass(frozen=True)
class Tagger:
    """A calibrated classifier, and for its own training products one per fold that never saw them."""

    variant: str
    labels: tuple[str, ...]
    """The order of the probabilities."""
    features: Pipeline | FeatureUnion
    whole: Classifier
    without_fold: dict[int, Classifier]
    """Fold to the classifier that was trained on all the others."""
    temperature: float

    def probabilities(self, rows: pa.Table, fold: np.ndarray | None = None) -> np.ndarray:
        """Calibrated probabilities, float32 [n, labels].

        Args:
            rows: embedding rows with `title`.
            fold: int [n], the fold of a row that trained this tagger, NO_FOLD for any other row; those that trained
                it are judged by a classifier that saw nothing of their group, so that their probabilities are no
                surer than a new product's.
        """
        if not len(rows):
            return np.empty((0, len(self.labels)), np.float32)
        seen = self.features.transform(rows)
        result = _log_probabilities(self.whole, self.labels, seen)
        for number, classifier in self.without_fold.items() if fold is not None else ():
            index = np.flatnonzero(fold == number)
            if len(index):
                result[index] = _log_probabilities(classifier, self.labels, seen[index])
        return apply_temperature(result, self.temperature)


def fit_tagger(tag: str, variant: str, rows: pa.Table, *, folds: bool) -> Tagger | None:
    """Fit and calibrate the tagger of `tag`.

    Args:
        rows: embedding rows of the products that have a label of `tag`, with `title`, `value` and `group`.
        folds: whether to fit the classifiers that judge the training products as well.

    Returns:
        None where the training split shows fewer than two labels: there is nothing to learn.
    """
    groups, truth = rows["group"].to_pylist(), np.array(rows["value"].to_pylist(), dtype=object)
    side, fold = split.assign_splits(groups), split.assign_folds(groups)
    train, calibrate = side == split.TRAIN, side == split.CALIBRATION
    if len(set(truth[train])) < 2:
        return None
    labels = TAG_VALUES.get(tag) or tuple(sorted(set(truth[train])))
    features = variants.make_features(variant).fit(rows.filter(pa.array(train)))
    seen = features.transform(rows)
    columns = {label: number for number, label in enumerate(labels)}
    column = np.array([columns.get(label, -1) for label in truth], dtype=np.int64)

    regularisation = _choose(seen[train], truth[train], fold[train], labels)
    numbers = [number for number in range(split.FOLDS) if folds and (train & (fold != number)).any()]
    whole = _train(seen[train], truth[train], regularisation)
    return Tagger(
        variant,
        labels,
        features,
        whole,
        {
            number: _train(seen[train & (fold != number)], truth[train & (fold != number)], regularisation)
            for number in numbers
        },
        fit_temperature(_log_probabilities(whole, labels, seen[calibrate]), column[calibrate]),
    )


def _choose(seen: Any, truth: np.ndarray, fold: np.ndarray, labels: tuple[str, ...]) -> float:
    """The regularisation of GRID under which the other folds find the truth of the fullest fold most likely."""
    judged = fold == np.bincount(fold).argmax()
    if judged.all():
        return REGULARISATION_GRID[len(REGULARISATION_GRID) // 2]
    column = np.array([labels.index(label) for label in truth[judged]])

    def loss(regularisation: float) -> float:
        said = _log_probabilities(_train(seen[~judged], truth[~judged], regularisation), labels, seen[judged])
        return -float(np.maximum(said[np.arange(len(column)), column], MIN_LOG_PROBABILITY).mean())

    return min(REGULARISATION_GRID, key=loss)


def _train(seen: Any, truth: np.ndarray, regularisation: float) -> Classifier:
    if len(set(truth)) < 2:
        return DummyClassifier(strategy="prior").fit(seen, truth)
    return LogisticRegression(C=regularisation, max_iter=1000, tol=1e-3).fit(seen, truth)


def _log_probabilities(classifier: Classifier, labels: tuple[str, ...], seen: Any) -> np.ndarray:
    """Float64 [n, labels]; a label that the classifier was never shown has -inf."""
    result = np.full((seen.shape[0], len(labels)), -np.inf)
    if len(result):
        result[:, [labels.index(label) for label in classifier.classes_]] = classifier.predict_log_proba(seen)
    return result
