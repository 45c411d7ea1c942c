"""The features that each variant uses: the parts of the tagger, and what it is compared with.

All variants use the same classifier, so they differ only in their features. The tagger in use combines some of them
(stacking.py) and has no features of its own. Each variant has a feature for a missing image or title, so that it can
learn the most likely labels of such products.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from feature_repo.arrow.take import to_matrix
from feature_repo.schema import TAG_VARIANTS

TAGGER, VECTORS, BAG_OF_WORDS, TEXT_TOWER, IMAGE_TOWER = TAG_VARIANTS

# The columns of the embedding rows that a variant without words uses, in the order of its features.
COLUMNS = {
    VECTORS: ("image_vector", "text_vector", "fused_vector", "has_image", "has_text"),
    TEXT_TOWER: ("text_vector", "has_text"),
    IMAGE_TOWER: ("image_vector", "has_image"),
}
NO_TITLE = "∅"
"""The word that stands for a missing title."""


def make_features(variant: str) -> Pipeline:
    """Return the unfitted transformer of a variant.

    Args:
        variant: one of schema.TAG_VARIANTS, but not TAGGER: which features of a product are used.

    Returns:
        A new transformer of tables as returned by `read_embedding_rows`, to float [n, width], a sparse matrix if the
        variant uses words. It must be fitted before use.

    Raises:
        KeyError: the variant is unknown.
    """
    if variant == BAG_OF_WORDS:
        return _make_word_features()
    return _make_vector_features(variant)


def read_titles(rows: pa.Table) -> list[str]:
    """Return the title of each row, in their order, without blanks at its ends; NO_TITLE if it is null or blank."""
    return [title.strip() or NO_TITLE for title in pc.fill_null(rows["title"], "").to_pylist()]


def stack_vectors(rows: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
    """Return vectors and flags side by side, float32 [n, width].

    Args:
        rows: embedding rows, with vectors as fixed-size lists.
        columns: names of the columns, in the order of the result. A null vector becomes NaN, a null flag 0; a flag
            that is set becomes 1.
    """
    return np.hstack([_to_matrix(rows[name]) for name in columns])


def _make_word_features() -> Pipeline:
    # Chinese has no spaces: character n-grams of length 1 to 3 stand for its words. Other languages need whole words.
    # Binary features were two points of accuracy better than counts and tf-idf.
    characters = CountVectorizer(analyzer="char", ngram_range=(1, 3), binary=True)
    words = CountVectorizer(analyzer="word", ngram_range=(1, 2), binary=True, token_pattern=r"\S+")
    return make_pipeline(FunctionTransformer(read_titles), make_union(characters, words))


def _make_vector_features(variant: str) -> Pipeline:
    # StandardScaler ignores NaN, so that 0 is then the mean of the vectors that are present.
    return make_pipeline(
        FunctionTransformer(stack_vectors, kw_args={"columns": COLUMNS[variant]}),
        StandardScaler(),
        SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True),
    )


def _to_matrix(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_boolean(column.type):
        return pc.fill_null(column, False).to_numpy().astype(np.float32)[:, None]
    return to_matrix(column, column.type.list_size)
