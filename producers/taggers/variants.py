"""What a tag is predicted from: the tagger itself, and what it is measured against.

All end in the same classifier, so that they differ in what they see and in nothing else.
"""

from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

Inputs: TypeAlias = np.ndarray | list[str]

TAGGER, BAG_OF_WORDS, TEXT_TOWER, IMAGE_TOWER = "image and text", "bag of words", "text tower", "image tower"

COLUMNS = {
    TAGGER: ("image_vector", "text_vector", "fused_vector", "has_image", "has_text"),
    TEXT_TOWER: ("text_vector", "has_text"),
    IMAGE_TOWER: ("image_vector", "has_image"),
}
NO_TITLE = "∅"
"""Stands for a missing title: a word that no title has."""


def inputs(variant: str, rows: pa.Table) -> Inputs:
    """What the variant sees of embedding rows (as `rows.read` gives them), in their order.

    Returns:
        float32 [n, width]; a missing vector is NaN and its `has_` column 0. For the bag of words a list of n titles,
        NO_TITLE for none. So each variant can see that its modality is missing, and say what is likely then.
    """
    if variant == BAG_OF_WORDS:
        return [title.strip() or NO_TITLE for title in pc.fill_null(rows["title"], "").to_pylist()]
    return np.hstack([_block(rows[name]) for name in COLUMNS[variant]])


def features(variant: str) -> Pipeline:
    """The transformation of `inputs` that the classifier sees, not yet fitted."""
    if variant == BAG_OF_WORDS:
        # Chinese has no spaces: runs of one to three characters are its words; other languages need whole words too.
        # Whether a word is there, not how often or how rare it is: of eight codings this one served best by two points.
        characters = CountVectorizer(analyzer="char", ngram_range=(1, 3), binary=True)
        words = CountVectorizer(analyzer="word", ngram_range=(1, 2), binary=True, token_pattern=r"\S+")
        return make_pipeline(make_union(characters, words))
    # NaN stays NaN while the others are standardised; 0 is then the mean of the vectors that are there.
    return make_pipeline(StandardScaler(), SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True))


def _block(column: pa.ChunkedArray) -> np.ndarray:
    """A column of vectors or flags as float32 [n, width]; NaN for a missing vector, 0 for a missing flag."""
    if pa.types.is_boolean(column.type):
        return pc.fill_null(column, False).to_numpy().astype(np.float32)[:, None]
    block = np.full((len(column), column.type.list_size), np.nan, dtype=np.float32)
    there = pc.is_valid(column).to_numpy()
    block[there] = pc.list_flatten(column).to_numpy().reshape(-1, column.type.list_size)
    return block
