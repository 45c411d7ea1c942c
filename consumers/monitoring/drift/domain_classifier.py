"""Domain classifier: how well a logistic regression separates recent from earlier products, as a cross-validated AUC.

A classifier can learn a change of shape in many dimensions that no single statistic shows (Ben-David et al. 2010, A
Theory of Learning from Different Domains).

There is one regression for each labelling of the same products. They minimize the objective of scikit-learn's
`LogisticRegression(C=1, class_weight="balanced")`, and are solved together by Newton's method. scikit-learn would fit
them one by one: for 1,200 products, 730 labellings and 3 folds it took 51 s (newton-cholesky) to 55 s (lbfgs) where
this module took 2.6 s, on one core of an AMD EPYC. The AUCs differed by less than 0.00001.
"""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

COMPONENTS = 24
"""Principal components that the classifier sees, computed from all products together."""
MAX_PRODUCTS = 1200
"""Products that `view_statistics` gives to the classifier, at most."""
FOLDS = 3
"""Parts of the products; each part is scored by a classifier that was fitted to the others."""
MAX_STEPS = 25
TOLERANCE = 1e-4
"""Newton's method stops after a step in which no weight changes by more than this."""
Floats = NDArray[np.float64]


def project(vectors: NDArray) -> Floats:
    """Return the vectors' first principal components, divided by the standard deviation of all of them together.

    Args:
        vectors: [n, width], finite, n at least 1.

    Returns:
        float64 [n, COMPONENTS], the largest component first; only `width` of them if that is less.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    projected = centred @ axes[:, ::-1][:, :COMPONENTS]
    return projected / max(float(projected.std()), 1e-12)


def compute_auc(vectors: NDArray, now: NDArray[np.bool_], seed: int) -> Floats:
    """Return how well a classifier separates recent from earlier products: the cross-validated AUC [labellings].

    The AUC is the share of pairs of a recent and an earlier product in which the recent one has the higher score: 0.5
    by chance, 1 at best. It is 0.5 if all products of a labelling have the same label.

    Args:
        vectors: [n, width], finite.
        now: [labellings, n], which products are recent.
        seed: seed of the folds, which are the same for all labellings, and of the order of products with equal scores.
    """
    order = np.random.default_rng(seed).permutation(len(vectors))
    rows, labels = project(vectors)[order], now[:, order]
    fold = np.arange(len(rows)) % FOLDS
    scores = np.zeros(labels.shape)
    with threadpool_limits(1):
        for k in range(FOLDS):
            is_train, is_test = fold != k, fold == k
            weights = fit(rows[is_train], labels[:, is_train])
            fold_scores = weights[:, :-1] @ rows[is_test].T
            # All folds are ranked together, so each fold's scores are centred.
            scores[:, is_test] = fold_scores - np.median(fold_scores, axis=1, keepdims=True)
    return _rank_auc(scores, labels)


def fit(rows: Floats, labels: NDArray[np.bool_]) -> Floats:
    """Fit one logistic regression for each labelling of the same rows.

    Minimizes 0.5 |w|^2 plus the sum of the class-balanced log losses. The intercept is not penalized.

    Args:
        rows: [n, width], finite.
        labels: [labellings, n], True for recent products.

    Returns:
        [labellings, width + 1], the weights with the intercept last; zeros if all rows of a labelling have one label.
    """
    count, width = rows.shape
    design = np.column_stack([rows, np.ones(count)])
    products = (design[:, :, None] * design[:, None, :]).reshape(count, -1)
    penalty = np.append(np.ones(width), 0.0)
    positives = labels.sum(axis=1, keepdims=True)
    has_both = (positives > 0) & (positives < count)
    balance = np.where(labels, count / np.maximum(2 * positives, 1), count / np.maximum(2 * (count - positives), 1))
    balance = np.where(has_both, balance, 0.0)
    weights = np.zeros((len(labels), width + 1))
    for _ in range(MAX_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(weights @ design.T, -30, 30)))
        gradient = (balance * (probability - labels)) @ design + weights * penalty
        hessian = ((balance * probability * (1 - probability)) @ products).reshape(len(labels), width + 1, width + 1)
        hessian += np.diag(penalty + 1e-9)
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        weights -= step
        if np.abs(step).max() < TOLERANCE:
            break
    return weights


def _rank_auc(scores: Floats, labels: NDArray[np.bool_]) -> Floats:
    """Return [labellings], the share of (recent, earlier) pairs in the right order. Ties keep the rows' order."""
    rank = scores.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable") + 1
    positives = labels.sum(axis=1)
    pairs = positives * (labels.shape[1] - positives)
    ordered = (rank * labels).sum(axis=1) - positives * (positives + 1) / 2
    return np.divide(ordered, pairs, out=np.full(len(labels), 0.5), where=pairs > 0)
