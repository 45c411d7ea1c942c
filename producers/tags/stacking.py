"""The tagger in use: several taggers of one tag, combined by a second classifier.

This is stacking (Wolpert 1992, "Stacked Generalization", Neural Networks 5). If a title names two ages and the image
shows one of them, both together are surer than either alone. The second classifier reads the log probabilities of the
parts for training products that the parts were not trained on. So it learns how far each part can be trusted.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from producers.tags import variants
from producers.tags.calibration import apply_temperature
from producers.tags.classifier import MIN_LOG_PROBABILITY, FoldedClassifier, fit_folds
from producers.tags.tagger import Tagger, select_training_rows

PARTS = (variants.VECTORS, variants.IMAGE_TOWER, variants.BAG_OF_WORDS)
"""Variants that are combined."""
REGULARISATION = 0.03
"""LogisticRegression's C of the second classifier. It has few features, so one value does for all tags; 0.03 needed no
temperature for ages and genders of a generated shop."""


@dataclass(frozen=True)
class StackedTagger:
    """Taggers of one tag and the classifier that combines them."""

    parts: tuple[Tagger, ...]
    """The taggers of PARTS, in that order; all have the same labels."""
    combiner: FoldedClassifier
    """Reads the log probabilities of the parts, side by side."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the probabilities."""
        return self.combiner.labels

    def predict_probabilities(self, rows: pa.Table, fold: np.ndarray | None = None) -> np.ndarray:
        """Return calibrated probabilities, float32 [n, labels], as `Tagger.predict_probabilities` does."""
        features = _stack(self.parts, rows, fold)
        log_probabilities = self.combiner.predict_log_probabilities(features, fold)
        return apply_temperature(log_probabilities, self.combiner.temperature)


def combine_taggers(parts: tuple[Tagger, ...], rows: pa.Table) -> StackedTagger:
    """Fit the classifier that combines taggers of one tag.

    Args:
        parts: the taggers of PARTS, fitted on `rows`.
        rows: the same rows as for `fit_tagger`.
    """
    rows, fold = select_training_rows(rows)
    truth = np.array(rows["value"].to_pylist(), dtype=object)
    return StackedTagger(parts, fit_folds(_stack(parts, rows, fold), truth, fold, parts[0].labels, REGULARISATION))


def _stack(parts: tuple[Tagger, ...], rows: pa.Table, fold: np.ndarray | None) -> np.ndarray:
    """Return the log probabilities of the parts side by side, float64 [n, parts * labels], none below the minimum."""
    blocks = [part.predict_log_probabilities(rows, fold) for part in parts]
    return np.maximum(np.hstack(blocks), MIN_LOG_PROBABILITY)
