"""What a tag is predicted from: the tagger itself, and what it is measured against.

All end in the same classifier, so that they differ in what they see and in nothing else. Each can see that a modality
is missing, and say what is likely then.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from feature_repo.arrow.take import to_matrix
from feature_repo.schema import TAG_VARIANTS

TAGGER, VECTORS, BAG_OF_WORDS, TEXT_TOWER, IMAGE_TOWER = TAG_VARIANTS

COLUMNS = {
    VECTORS: ("image_vector", "text_vector", "fused_vector", "has_image", "has_text"),
    TEXT_TOWER: ("text_vector", "has_text"),
    IMAGE_TOWER: ("image_vector", "has_image"),
}
VECTORS_BESIDE_WORDS = 0.3
"""Of a standardised coordinate, which varies more than a word that is there or not: neither is to drown the other."""
NO_TITLE = "∅"
"""Stands for a missing title: a word that no title has."""


def make_features(variant: str) -> Pipeline | FeatureUnion:
    """The transformation of embedding rows (a table as `rows.read` gives it) that the classifier sees, not yet fitted.

    Its `transform` gives one row per row of the table: float [n, width], sparse where words are among them.
    """
    if variant == BAG_OF_WORDS:
        return _words()
    if variant == TAGGER:
        # A vector of a hundred numbers cannot keep every word of a title, and the title is at hand.
        return FeatureUnion(
            [("vectors", _vectors(VECTORS)), ("words", _words())], transformer_weights={"vectors": VECTORS_BESIDE_WORDS}
        )
    return _vectors(variant)


def read_titles(rows: pa.Table) -> list[str]:
    """The titles of embedding rows, NO_TITLE for none."""
    return [title.strip() or NO_TITLE for title in pc.fill_null(rows["title"], "").to_pylist()]


def stack_vectors(rows: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
    """Vectors and flags of embedding rows as float32 [n, width]; a missing vector is NaN, a missing flag 0."""
    return np.hstack([_block(rows[name]) for name in columns])


def _words() -> Pipeline:
    # Chinese has no spaces: runs of one to three characters are its words; other languages need whole words too.
    # Whether a word is there, not how often or how rare it is: of eight codings this one served best by two points.
    characters = CountVectorizer(analyzer="char", ngram_range=(1, 3), binary=True)
    words = CountVectorizer(analyzer="word", ngram_range=(1, 2), binary=True, token_pattern=r"\S+")
    return make_pipeline(FunctionTransformer(read_titles), make_union(characters, words))


def _vectors(variant: str) -> Pipeline:
    # NaN stays NaN while the others are standardised; 0 is then the mean of the vectors that are there.
    return make_pipeline(
        FunctionTransformer(stack_vectors, kw_args={"columns": COLUMNS[variant]}),
        StandardScaler(),
        SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True),
    )


def _block(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_boolean(column.type):
        return pc.fill_null(column, False).to_numpy().astype(np.float32)[:, None]
    return to_matrix(column, column.type.list_size)
