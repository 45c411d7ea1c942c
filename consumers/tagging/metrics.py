"""Metrics of predicted tags. One call computes a metric for every bootstrap replicate.

A bootstrap replicate is a sample of the groups of products, drawn with replacement. Most functions take the predictions
for n products, and `weights`, int [replicates, groups]: how often each group was drawn in each replicate. They return
the metric in each replicate, float64 [replicates], NaN if no product is left. Every metric is a function of sums over
products, so all replicates cost one matrix product.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

BINS = 15
"""Number of bins of the calibration error, as in Guo et al. (2017)."""


@dataclass(frozen=True)
class TagPredictions:
    """What one classifier (a variant of the tagger) predicts of one tag, for n labelled products."""

    probabilities: Floats
    """Probability of each label [n, labels]; each row sums to 1."""
    truth: Ints
    """Column of the true label [n]; -1 if the classifier cannot predict it, so that the prediction is wrong."""
    group: Ints
    """Number of the group of each product, from 0 [n]: its column in `weights`. Products of one group are the same
    design and are drawn together."""

    @property
    def label(self) -> Ints:
        """Column of the most probable label of each product [n]; the first one if several are equally probable."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> Floats:
        """Probability of the most probable label of each product [n]."""
        return self.probabilities.max(axis=1)

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        """Whether the most probable label of each product is the true one [n]."""
        return self.label == self.truth


def compute_accuracy(predictions: TagPredictions, weights: Ints) -> NDArray[np.float64]:
    """Return the share of products whose most probable label is the true one, however probable it is.

    Args:
        predictions: the predictions for n products.
        weights: how often each group was drawn in each replicate, int [replicates, groups].

    Returns:
        float64 [replicates], in [0, 1]; NaN where no product is left.
    """
    return _weighted_ratio(predictions, predictions.is_correct, np.ones(len(predictions.truth)), weights)


def compute_share(is_right: NDArray[np.bool_], group: Ints, weights: Ints) -> NDArray[np.float64]:
    """Return the share of products with a right answer.

    Args:
        is_right: whether the answer for each of n products is right [n]; n may be 0.
        group: the group of each product, a column of `weights` [n].
        weights: how often each group was drawn in each replicate, int [replicates, groups].

    Returns:
        float64 [replicates], in [0, 1]; NaN where no product is left.
    """
    right, total = (
        weights @ np.bincount(group, values, minlength=weights.shape[1]) for values in (is_right, np.ones(len(group)))
    )
    return _divide(right, total)


def compute_macro_f1(predictions: TagPredictions, weights: Ints) -> NDArray[np.float64]:
    """Return the mean over labels of F1 = 2 TP / (2 TP + FP + FN) (van Rijsbergen 1979, chapter 7, equal weights).

    TP, FP and FN are the true positives, false positives and false negatives of a label. The mean is over the labels
    that a drawn product has or is predicted to have; F1 is undefined for others. The labels that the classifier cannot
    predict count as one label with F1 = 0.

    Args:
        predictions: the predictions for n products.
        weights: how often each group was drawn in each replicate, int [replicates, groups].

    Returns:
        float64 [replicates], in [0, 1]; NaN where no product is left.
    """
    labels = np.arange(-1, predictions.probabilities.shape[1])
    is_true, is_predicted = predictions.truth[:, None] == labels, predictions.label[:, None] == labels
    hits, occurrences = (
        weights @ _sum_by_group(predictions, part, weights)
        for part in (is_true & is_predicted, is_true.astype(int) + is_predicted)
    )
    f1 = np.divide(2.0 * hits, occurrences, out=np.zeros(hits.shape), where=occurrences > 0)
    return _divide(f1.sum(axis=1), (occurrences > 0).sum(axis=1))


def compute_brier_score(predictions: TagPredictions, weights: Ints) -> NDArray[np.float64]:
    """Return the mean over products of the sum over labels of (probability - outcome)^2, in [0, 2]; lower is better.

    Brier (1950), Verification of Forecasts Expressed in Terms of Probability. The outcome is 1 for the true label and 0
    for the others. A true label that the classifier cannot predict adds 1.

    Args:
        predictions: the predictions for n products.
        weights: how often each group was drawn in each replicate, int [replicates, groups].

    Returns:
        float64 [replicates]; NaN where no product is left.
    """
    outcome = predictions.truth[:, None] == np.arange(predictions.probabilities.shape[1])
    squared = ((predictions.probabilities - outcome) ** 2).sum(axis=1) + (predictions.truth < 0)
    return _weighted_ratio(predictions, squared, np.ones(len(squared)), weights)


def compute_calibration_error(predictions: TagPredictions, weights: Ints) -> NDArray[np.float64]:
    """Return the expected calibration error of the most probable label, in [0, 1]; 0 is perfectly calibrated.

    Guo et al. (2017), On Calibration of Modern Neural Networks, eq. 3: the confidence is divided into `BINS` bins
    ((b - 1)/BINS, b/BINS]; the error is the mean over products of |accuracy - mean confidence| of their bin. It is
    biased upwards if bins are small, and its bootstrap replicates are biased more: compare it with
    `compute_chance_calibration_error`.

    Args:
        predictions: the predictions for n products.
        weights: how often each group was drawn in each replicate, int [replicates, groups].

    Returns:
        float64 [replicates]; NaN where no product is left.
    """
    number = np.clip(np.ceil(predictions.confidence * BINS) - 1, 0, BINS - 1)
    is_in_bin = number[:, None] == np.arange(BINS)
    gap = (predictions.is_correct - predictions.confidence.astype(np.float64))[:, None] * is_in_bin
    total_gap = np.abs(weights @ _sum_by_group(predictions, gap, weights)).sum(axis=1)
    return _divide(total_gap, weights @ np.bincount(predictions.group, minlength=weights.shape[1]))


def compute_chance_calibration_error(predictions: TagPredictions, draws: int, seed: int) -> float:
    """Return the mean calibration error that perfectly calibrated probabilities would have on as many products.

    Consistency resampling (Bröcker and Smith 2007, Increasing the Reliability of Reliability Diagrams): outcomes are
    drawn from the predicted probabilities.

    The products count once each; groups do not matter.

    Args:
        predictions: the predictions; their true labels are ignored.
        draws: how often outcomes are drawn for all products, at least 1.
        seed: seed of the draws.

    Returns:
        The mean over the draws, in [0, 1]; NaN if there are no products.
    """
    rng = np.random.default_rng(seed)
    cumulative = predictions.probabilities.cumsum(axis=1)
    once = np.ones((1, int(predictions.group.max(initial=-1)) + 1), dtype=np.int64)

    def draw_error() -> float:
        outcome = (cumulative < rng.random((len(cumulative), 1)) * cumulative[:, -1:]).sum(axis=1)
        drawn = TagPredictions(predictions.probabilities, outcome, predictions.group)
        return float(compute_calibration_error(drawn, once)[0])

    return float(np.mean([draw_error() for _ in range(draws)])) if len(cumulative) else float("nan")


def compute_coverage(predictions: TagPredictions, weights: Ints, threshold: float) -> NDArray[np.float64]:
    """Return the share of products whose most probable label is kept, because it has at least a given probability.

    Coverage and `compute_selective_accuracy`: El-Yaniv and Wiener (2010), On the Foundations of Noise-free Selective
    Classification.

    Args:
        predictions: the predictions for n products.
        weights: how often each group was drawn in each replicate, int [replicates, groups].
        threshold: the smallest probability that is kept, in [0, 1].

    Returns:
        float64 [replicates], in [0, 1]; NaN where no product is left.
    """
    is_kept = predictions.confidence >= threshold
    return _weighted_ratio(predictions, is_kept, np.ones(len(predictions.truth)), weights)


def compute_selective_accuracy(predictions: TagPredictions, weights: Ints, threshold: float) -> NDArray[np.float64]:
    """Return the share of the kept labels that are true. Of each product only the most probable label can be kept.

    Args:
        predictions: the predictions for n products.
        weights: how often each group was drawn in each replicate, int [replicates, groups].
        threshold: the smallest probability of a label that is kept, in [0, 1].

    Returns:
        float64 [replicates], in [0, 1]; NaN where no label is kept.
    """
    is_kept = predictions.confidence >= threshold
    return _weighted_ratio(predictions, predictions.is_correct & is_kept, is_kept, weights)


def draw_group_weights(groups: int, replicates: int, seed: int) -> NDArray[np.int64]:
    """Return how often each group is drawn, int64 [1 + replicates, groups].

    Row 0 has each group once, so that it gives the metric of all products. In the other rows, as many groups as there
    are were drawn with replacement.

    Args:
        groups: number of groups, at least 1.
        replicates: number of bootstrap replicates; with 0 the result has only row 0.
        seed: seed of the draws.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(groups, np.full(groups, 1 / max(groups, 1)), size=replicates)
    return np.concatenate([np.ones((1, groups), dtype=np.int64), drawn])


def _weighted_ratio(
    predictions: TagPredictions,
    numerator: Floats | NDArray[np.bool_],
    denominator: Floats | NDArray[np.bool_],
    weights: Ints,
) -> NDArray[np.float64]:
    sums = weights @ _sum_by_group(predictions, np.column_stack([numerator, denominator]), weights)
    return _divide(sums[:, 0], sums[:, 1])


def _sum_by_group(predictions: TagPredictions, values: NDArray, weights: Ints) -> NDArray[np.float64]:
    """Return the sums of `values` [n, m] over the products of each group, float64 [groups, m]."""
    sums = np.zeros((weights.shape[1], values.shape[1]))
    np.add.at(sums, predictions.group, values)
    return sums


def _divide(numerator: NDArray, denominator: NDArray) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
