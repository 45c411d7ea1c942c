"""Measures of a tuned encoder, each as one value for each query, so that two encoders are compared query by query."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.evaluation.average_precision import compute_average_precision
from producers.encoders.recall import rank_right_images
from producers.encoders.tuning.examples import BLOCK, Rows, Sentences, Vectors, split_judged

Values = NDArray[np.float64]

CUTOFF = 10
"""Nearest products that a recall counts."""
DRAWS = 1000
"""Resamplings of an interval."""
PENALTY = 1 / 8
"""Ridge penalty for each training product of a probe, on features of variance 1."""


def measure_same_recall(vectors: Vectors, groups: Rows, queries: Rows) -> Values:
    """Return for each query the share of its same products that are among its CUTOFF nearest, of at most CUTOFF.

    All products are searched, the query itself left out. NaN for a query without a same product, or without a vector.

    Args:
        vectors: unit vectors [n, d]; NaN rows are found by no query.
        groups: [n], equal for products that are the same.
        queries: rows of the products that are searched for.
    """
    values = np.full(len(queries), np.nan)
    searched = np.nan_to_num(vectors)
    for start in range(0, len(queries), BLOCK):
        rows = queries[start : start + BLOCK]
        cosines = searched[rows] @ searched.T
        cosines[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-cosines, min(CUTOFF, cosines.shape[1] - 1), axis=1)[:, :CUTOFF]
        hits = (groups[nearest] == groups[rows][:, None]).sum(axis=1)
        total = (groups[None, :] == groups[rows][:, None]).sum(axis=1) - 1
        is_measured = (total > 0) & np.isfinite(vectors[rows, 0])
        values[start : start + BLOCK][is_measured] = (hits / np.clip(total, 1, CUTOFF))[is_measured]
    return values


def measure_sentences(queries: Vectors, images: Vectors, sentences: Sentences) -> Values:
    """Return the average precision of the first 50 judged products of each sentence; NaN where none fits.

    Args:
        queries: unit vectors of the sentences [m, d].
        images: unit vectors of the products' images [n, d].
        sentences: about the n products.
    """
    values = np.full(len(queries), np.nan)
    for number, query in enumerate(queries):
        fits, misfits = split_judged(sentences, number)
        if len(fits) and len(misfits):
            scores = (
                images[np.concatenate([misfits, fits])] @ query
            )  # of equal scores, those that do not fit come first
            values[number] = compute_average_precision(scores, np.arange(len(scores)) >= len(misfits), len(fits))
    return values


def measure_title_recall(texts: Vectors, images: Vectors, groups: Rows) -> Values:
    """Return whether each title finds an image of its own group among the CUTOFF nearest: 1 or 0, [n]."""
    return (rank_right_images(texts @ images.T, groups) < CUTOFF).astype(float)


def measure_probe(vectors: Vectors, labels: NDArray[np.object_], is_tested: NDArray[np.bool_]) -> Values:
    """Return whether a linear classifier predicts the label of each tested product: 1 or 0, [tested and labelled].

    Args:
        vectors: unit vectors [n, d].
        labels: [n]; None for a product without one.
        is_tested: [n]; the classifier is trained on the others.
    """
    from sklearn.linear_model import RidgeClassifier

    is_labelled = np.array([label is not None for label in labels])
    trained, tested = np.flatnonzero(is_labelled & ~is_tested), np.flatnonzero(is_labelled & is_tested)
    if len(set(labels[trained])) < 2 or not len(tested):
        return np.empty(0)
    scaled = (vectors - vectors[trained].mean(axis=0)) / (vectors[trained].std(axis=0) + 1e-6)
    classifier = RidgeClassifier(alpha=PENALTY * len(trained)).fit(scaled[trained], labels[trained].astype(str))
    return (classifier.predict(scaled[tested]) == labels[tested].astype(str)).astype(float)


def draw_interval(before: Values, after: Values, clusters: Rows, seed: int = 0) -> tuple[float, float]:
    """Return the 95% interval of the mean difference, with whole clusters drawn with replacement (paired bootstrap).

    Args:
        before: a value for each query [q], not NaN.
        after: the same by the other encoder.
        clusters: what each query belongs to, such as its design [q].
        seed: of the draws.
    """
    _, number = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(number, weights=after - before), np.bincount(number)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (DRAWS, len(sums)))
    low, high = np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)
