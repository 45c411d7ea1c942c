"""Second-level categories by image, text and words, beside TF-IDF of the titles alone.

Both sides have the same classifier, whose regularization is chosen on folds within the training products.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer

from feature_repo.arrow.take import matrix_to_lists
from producers.encoders.whitening import SAME_PRODUCT, fuse
from producers.tags import embedding_rows, variants
from tests.benchmarks.photographs import report
from tests.benchmarks.photographs.encoders import TrainedVectors, train_assembled
from tests.benchmarks.photographs.report import PairedFigure
from tests.benchmarks.photographs.sets import FOLDS, PhotographSet, find_frequent

GRID = (0.1, 1.0, 10.0, 100.0)
"""Values of C that are tried."""
INNER_FOLDS = 4


def measure_tags(products: PhotographSet, work: Path) -> list[PairedFigure]:
    """Predict the category of each product by classifiers and an encoder that have not seen its fold."""
    labelled = find_frequent(products.categories)
    truth = np.array([category or "" for category in products.categories])
    right: dict[str, NDArray[np.float64]] = {name: np.full(len(truth), np.nan) for name in SIDES}
    for fold in range(FOLDS):
        fitted, tested = labelled & (products.folds != fold), labelled & (products.folds == fold)
        vectors = train_assembled(
            products.titles, products.images, products.folds != fold, products.titles, work / f"{fold}"
        )
        rows = make_rows(products.titles, vectors)
        for name, make in SIDES.items():
            features = make().fit(rows.filter(pa.array(fitted)))
            train, test = (features.transform(rows.filter(pa.array(part))) for part in (fitted, tested))
            classifier = fit_classifier(train, truth[fitted], products.groups[fitted])
            right[name][tested] = classifier.predict(test) == truth[tested]
    words, clusters = right["TF-IDF"][labelled], products.groups[labelled]
    return [
        PairedFigure(
            "flipkart_1050",
            f"second-level category, {name}: accuracy",
            f"TF-IDF {words.mean():.3f}",
            f"{own[labelled].mean():.3f}",
            report.format_difference(own[labelled], words, clusters),
            f"{labelled.sum():,} products, {len(set(truth[labelled]))} categories",
            "",
        )
        for name, own in right.items()
        if name != "TF-IDF"
    ]


def make_rows(titles: list[str], vectors: TrainedVectors) -> pa.Table:
    """Return rows as the taggers read them, with titles."""
    fused = fuse(vectors.image, vectors.text, SAME_PRODUCT)
    columns = {"image_vector": vectors.image, "text_vector": vectors.text, "fused_vector": fused}
    table: dict[str, Any] = {name: matrix_to_lists(rows) for name, rows in columns.items()}
    table |= {"has_image": np.isfinite(vectors.image[:, 0]), "has_text": np.isfinite(vectors.text[:, 0])}
    return embedding_rows.fix_vector_width(pa.table(table | {"title": titles}))


def make_tfidf() -> Any:
    """Return TF-IDF of words, pairs of words, and characters."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    return make_pipeline(FunctionTransformer(variants.read_titles), make_union(words, characters))


def make_tfidf_and_vectors() -> Any:
    """Return TF-IDF beside the vectors, scaled as the tagger scales them beside its words."""
    return FeatureUnion(
        [("vectors", variants.make_features(variants.VECTORS)), ("words", make_tfidf())],
        transformer_weights={"vectors": VECTOR_WEIGHT},
    )


def fit_classifier(features: Any, truth: NDArray[np.str_], groups: NDArray[np.int64]) -> Any:
    """Return a logistic regression whose regularization is the best of GRID on INNER_FOLDS of whole groups."""
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": GRID}, cv=GroupKFold(INNER_FOLDS))
    return search.fit(features, truth, groups=groups)


VECTOR_WEIGHT = 0.1
SIDES = {
    "TF-IDF": make_tfidf,
    "image, text and words of the tagger": lambda: variants.make_features(variants.TAGGER),
    "image, text and TF-IDF": make_tfidf_and_vectors,
}
