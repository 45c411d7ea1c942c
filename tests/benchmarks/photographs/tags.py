"""Second-level categories by image, text and words, beside TF-IDF of the titles alone.

Both sides have the same words and the same classifier, and choose their constants on folds within the training
products. The vectors are those of an encoder that has not seen the products that are predicted.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_union
from sklearn.preprocessing import StandardScaler, normalize

from producers.encoders.encoder import Outputs, Vectors
from tests.benchmarks.photographs import report
from tests.benchmarks.photographs.encoders import train_assembled
from tests.benchmarks.photographs.report import PairedFigure
from tests.benchmarks.photographs.sets import PhotographSet, find_frequent

REGULARISATIONS = (10.0, 100.0)
"""Values of LogisticRegression's C that are tried."""
ALONE = "TF-IDF alone"
VECTORS, OUTPUTS = "vectors of image and text, and TF-IDF", "outputs of both towers, and TF-IDF"
SIDES = {ALONE: (0.0,), VECTORS: (0.3, 0.6, 1.0), OUTPUTS: (0.3, 0.6, 1.0)}
"""Name of what is read, and the factors of vectors or outputs beside TF-IDF that are tried; all have unit rows."""
INNER_FOLDS = 3


def measure_tags(products: PhotographSet, work: Path, folds: int) -> list[PairedFigure]:
    """Predict the category of each product of the first folds by classifiers and an encoder that have not seen it."""
    labelled = find_frequent(products.categories)
    truth = np.array([category or "" for category in products.categories])
    right: dict[str, list[NDArray[np.float64]]] = {name: [] for name in SIDES}
    rows = []
    for fold in range(folds):
        fitted = np.flatnonzero(labelled & (products.folds != fold))
        tested = np.flatnonzero(labelled & (products.folds == fold))
        kept = products.folds != fold
        trained = train_assembled(products, kept, products.images, products.titles, work / f"{fold}")
        tfidf = make_tfidf().fit([products.titles[row] for row in fitted]).transform(products.titles)
        assert trained.outputs is not None
        dense = {
            ALONE: np.zeros((len(truth), 0), np.float32),
            VECTORS: np.hstack([trained.image, trained.text]),
            OUTPUTS: np.hstack([standardize(outputs, fitted) for outputs in trained.outputs]),
        }
        for name, weights in SIDES.items():
            groups = products.groups[fitted]
            features, classifier = fit_best(tfidf, dense[name], weights, fitted, truth[fitted], groups)
            right[name].append((classifier.predict(features[tested]) == truth[tested]).astype(float))
        rows.append(tested)
    row = np.concatenate(rows)
    values = {name: np.concatenate(each) for name, each in right.items()}
    return [
        PairedFigure(
            "flipkart_1050",
            f"second-level category, {name}: accuracy",
            f"{ALONE} {values[ALONE].mean():.3f}",
            f"{values[name].mean():.3f}",
            report.format_difference(values[name], values[ALONE], products.groups[row]),
            f"{len(row):,} products, {len(set(truth[row]))} categories",
            "",
        )
        for name in (VECTORS, OUTPUTS)
    ]


def standardize(outputs: Outputs, fitted: NDArray[np.int64]) -> Vectors:
    """Return outputs of a tower [n, width], standardized by some rows and then of unit length."""
    return normalize(StandardScaler().fit(outputs[fitted].astype(np.float32)).transform(outputs.astype(np.float32)))


def make_tfidf() -> Any:
    """Return TF-IDF of words, pairs of words, and characters."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    return make_union(words, characters)


def fit_best(
    tfidf: Any,
    vectors: Vectors,
    weights: tuple[float, ...],
    fitted: NDArray[np.int64],
    truth: NDArray[np.str_],
    groups: NDArray[np.int64],
) -> tuple[Any, Any]:
    """Return features of all products, and the logistic regression with the best inner folds of whole groups."""
    best, chosen = -1.0, None
    for weight in weights:
        features = sparse.csr_matrix(sparse.hstack([tfidf, weight * vectors]) if weight else tfidf)
        for regularisation in REGULARISATIONS:
            classifier = LogisticRegression(C=regularisation, max_iter=200, tol=1e-3)
            folds = GroupKFold(INNER_FOLDS)
            score = float(cross_val_score(classifier, features[fitted], truth, groups=groups, cv=folds).mean())
            if score > best:
                best, chosen = score, (features, classifier)
    assert chosen is not None
    features, classifier = chosen
    return features, classifier.fit(features[fitted], truth)
