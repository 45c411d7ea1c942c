"""How good predicted tags are, under weighted groups: one call gives a metric for every bootstrap replicate.

All take what was said of n products and `weights` int [replicates, groups]: how often each group of products was
drawn. They return float64 [replicates], NaN where nothing is left to judge. Every metric is a function of sums over
products, so a replicate costs one product of matrices.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

BINS = 15
"""Of the calibration error: as many as its authors used."""


@dataclass(frozen=True)
class TagPredictions:
    """What one variant said of the products that a person labelled."""

    probabilities: Floats
    """[n, labels], rows add up to 1."""
    truth: Ints
    """[n], the column of the true label; -1 where the classifier does not know the label, and so is wrong."""
    group: Ints
    """[n], codes from 0: products of one group are the same design and are drawn together."""

    @property
    def label(self) -> Ints:
        """The most probable label of each product, [n]."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> Floats:
        """Its probability, [n]."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether it is the true one, [n]."""
        return self.label == self.truth


def compute_accuracy(said: TagPredictions, weights: Ints) -> NDArray[np.float64]:
    """Share of products whose most probable label is the true one; nothing is abstained from."""
    return _ratio(said, said.right, np.ones(len(said.truth)), weights)


def compute_macro_f1(said: TagPredictions, weights: Ints) -> NDArray[np.float64]:
    """Mean over labels of F1 = 2 TP / (2 TP + FP + FN) (van Rijsbergen 1979, chapter 7, with equal weights).

    Over the labels that a drawn product has or is given: the F1 of any other is undefined. The labels that the
    classifier does not know count as one, whose F1 is 0.
    """
    labels = np.arange(-1, said.probabilities.shape[1])
    true, given = said.truth[:, None] == labels, said.label[:, None] == labels
    hits, seen = (weights @ _group_sums(said, part, weights) for part in (true & given, true.astype(int) + given))
    f1 = np.divide(2.0 * hits, seen, out=np.zeros(hits.shape), where=seen > 0)
    return _divide(f1.sum(axis=1), (seen > 0).sum(axis=1))


def compute_brier_score(said: TagPredictions, weights: Ints) -> NDArray[np.float64]:
    """Mean over products of the sum over labels of (probability - happened)^2, in [0, 2]; lower is better.

    Brier (1950), Verification of Forecasts Expressed in Terms of Probability. A truth that the classifier does not
    know happened outside its labels: it adds 1.
    """
    happened = said.truth[:, None] == np.arange(said.probabilities.shape[1])
    squared = ((said.probabilities - happened) ** 2).sum(axis=1) + (said.truth < 0)
    return _ratio(said, squared, np.ones(len(squared)), weights)


def compute_calibration_error(said: TagPredictions, weights: Ints) -> NDArray[np.float64]:
    """Expected calibration error of the most probable label; 0 is calibrated, 1 the worst.

    Guo et al. (2017), On Calibration of Modern Neural Networks, eq. 3: confidence in `BINS` bins ((b - 1)/BINS,
    b/BINS], mean over products of |share that is right - mean confidence| of their bin. It is biased upwards where
    bins are small, and its bootstrap replicates more so: compare it with `calibration_error_by_chance`.
    """
    place = np.clip(np.ceil(said.confidence * BINS) - 1, 0, BINS - 1)
    bins = place[:, None] == np.arange(BINS)
    gap = (said.right - said.confidence.astype(np.float64))[:, None] * bins
    of_bin = np.abs(weights @ _group_sums(said, gap, weights)).sum(axis=1)
    return _divide(of_bin, weights @ np.bincount(said.group, minlength=weights.shape[1]))


def compute_chance_calibration_error(said: TagPredictions, draws: int, seed: int) -> float:
    """The calibration error that perfectly calibrated probabilities would show on so many products, on average.

    Consistency resampling (Bröcker and Smith 2007, Increasing the Reliability of Reliability Diagrams): outcomes are
    drawn from the probabilities themselves. NaN if there are no products.
    """
    chance = np.random.default_rng(seed)
    cumulative = said.probabilities.cumsum(axis=1)
    once = np.ones((1, int(said.group.max(initial=-1)) + 1), dtype=np.int64)

    def drawn() -> float:
        outcome = (cumulative < chance.random((len(cumulative), 1)) * cumulative[:, -1:]).sum(axis=1)
        return float(compute_calibration_error(TagPredictions(said.probabilities, outcome, said.group), once)[0])

    return float(np.mean([drawn() for _ in range(draws)])) if len(cumulative) else float("nan")


def compute_coverage(said: TagPredictions, weights: Ints, threshold: float) -> NDArray[np.float64]:
    """Share of products whose label is kept because its probability is at least `threshold`.

    Coverage and `selective_accuracy`: El-Yaniv and Wiener (2010), On the Foundations of Noise-free Selective
    Classification.
    """
    return _ratio(said, said.confidence >= threshold, np.ones(len(said.truth)), weights)


def compute_selective_accuracy(said: TagPredictions, weights: Ints, threshold: float) -> NDArray[np.float64]:
    """Share of the kept labels that are true; NaN if none is kept."""
    kept = said.confidence >= threshold
    return _ratio(said, said.right & kept, kept, weights)


def draw_group_weights(groups: int, replicates: int, seed: int) -> NDArray[np.int64]:
    """Bootstrap weights [1 + replicates, groups]: row 0 takes each group once, the others draw with replacement."""
    chance = np.random.default_rng(seed)
    drawn = chance.multinomial(groups, np.full(groups, 1 / max(groups, 1)), size=replicates)
    return np.concatenate([np.ones((1, groups), dtype=np.int64), drawn])


def _ratio(
    said: TagPredictions, above: Floats | NDArray[np.bool_], below: Floats | NDArray[np.bool_], weights: Ints
) -> NDArray[np.float64]:
    sums = weights @ _group_sums(said, np.column_stack([above, below]), weights)
    return _divide(sums[:, 0], sums[:, 1])


def _group_sums(said: TagPredictions, values: NDArray, weights: Ints) -> NDArray[np.float64]:
    """Sums of `values` [n, m] over the products of each group: float64 [groups, m]."""
    sums = np.zeros((weights.shape[1], values.shape[1]))
    np.add.at(sums, said.group, values)
    return sums


def _divide(above: NDArray, below: NDArray) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
