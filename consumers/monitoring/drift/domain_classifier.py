"""How well a classifier tells the products of now from those before: the AUC of a logistic regression.

A domain classifier (Ben-David et al. 2010, A Theory of Learning from Different Domains): what no single statistic
shows, a change of shape in many dimensions, it can learn. It is cross-validated, so that it gains nothing by heart.

One regression for each labelling of the same products: they are fitted side by side, by Newton's method on the
objective of scikit-learn's `LogisticRegression(C=1, class_weight="balanced")`, thirty times as fast as one by one.
"""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

WIDTH = 24
"""Principal components, of all products together, that the classifier sees."""
ROWS = 1200
"""Products at most."""
FOLDS = 3
STEPS = 25
CLOSE = 1e-4
"""A step this small is the last."""
Floats = NDArray[np.float64]


def components(vectors: NDArray) -> Floats:
    """[n, width]: the vectors by their principal components, each of the scale that it has."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    shown = centred @ axes[:, ::-1][:, :WIDTH]
    return shown / max(float(shown.std()), 1e-12)


def auc(vectors: NDArray, now: NDArray[np.bool_], seed: int) -> Floats:
    """[labellings], the cross-validated AUC; 0.5 where one side of a labelling has no product to learn from.

    Args:
        vectors: [n, width], finite.
        now: [labellings, n].
        seed: of the folds, which are the same for all labellings, and of the order of products whose vectors are equal.
    """
    order = np.random.default_rng(seed).permutation(len(vectors))
    shown, label = components(vectors)[order], now[:, order]
    fold = np.arange(len(shown)) % FOLDS
    scores = np.zeros(label.shape)
    with threadpool_limits(1):
        for one in range(FOLDS):
            train, test = fold != one, fold == one
            weights = fit(shown[train], label[:, train])
            found = weights[:, :-1] @ shown[test].T
            scores[:, test] = found - np.median(found, axis=1, keepdims=True)  # folds are ranked together
    return _ranked(scores, label)


def fit(shown: Floats, label: NDArray[np.bool_]) -> Floats:
    """[labellings, width + 1], a logistic regression for each labelling of the same rows, its intercept last.

    Minimises 0.5 |w|^2 + the sum of balanced log losses; zeros where a labelling has one label alone.
    """
    count, width = shown.shape
    rows = np.column_stack([shown, np.ones(count)])
    pairs = (rows[:, :, None] * rows[:, None, :]).reshape(count, -1)
    penalty = np.append(np.ones(width), 0.0)
    positives = label.sum(axis=1, keepdims=True)
    both = (positives > 0) & (positives < count)
    balance = np.where(label, count / np.maximum(2 * positives, 1), count / np.maximum(2 * (count - positives), 1))
    balance = np.where(both, balance, 0.0)
    weights = np.zeros((len(label), width + 1))
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(weights @ rows.T, -30, 30)))
        slope = (balance * (chance - label)) @ rows + weights * penalty
        bend = ((balance * chance * (1 - chance)) @ pairs).reshape(len(label), width + 1, width + 1)
        bend += np.diag(penalty + 1e-9)
        step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0]
        weights -= step
        if np.abs(step).max() < CLOSE:
            break
    return weights


def _ranked(scores: Floats, label: NDArray[np.bool_]) -> Floats:
    """[labellings], the share of (now, before) pairs in the right order; of equal ones as the rows stand."""
    rank = scores.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable") + 1
    positives = label.sum(axis=1)
    pairs = positives * (label.shape[1] - positives)
    right = (rank * label).sum(axis=1) - positives * (positives + 1) / 2
    return np.divide(right, pairs, out=np.full(len(label), 0.5), where=pairs > 0)
