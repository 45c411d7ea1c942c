"""Features of missing data: what a product lacks, what was predicted instead, and the age of its vectors.

    vector_age_days         days since the event timestamp of the embedding row
    image_missing           1 if the product has no usable image
    text_missing            1 if it has no title
    TAG_abstained           1 if the tagger abstained, for each of schema.TAGS
    category_predicted      1 if the shop gave no category and the tagger predicted one

A product without an embedding row has NaN in the first three, one without a row of tags NaN in the others.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import TAGS

Floats = NDArray[np.float32]

MICROSECONDS_PER_DAY = 86_400_000_000
MODALITY_NAMES = ("vector_age_days", "image_missing", "text_missing")
"""The features of the embedding row."""
TAG_NAMES = (*(f"{tag}_abstained" for tag in TAGS), "category_predicted")
"""The features of the row of tags."""
NAMES = (*MODALITY_NAMES, *TAG_NAMES)
"""All features, in the order of the module's list."""


def compute_vector_features(
    age: NDArray[np.integer], has_row: NDArray[np.bool_], has_modality: Mapping[str, Floats]
) -> dict[str, Floats]:
    """Return `vector_age_days`, `image_missing` and `text_missing` of n products.

    Args:
        age: integer [n], microseconds since the event timestamp of the embedding row; any number where there is none.
        has_row: bool [n], whether there is an embedding row.
        has_modality: `image` and `text`: float [n], 1 if present, 0 if not, NaN if there is no row.

    Returns:
        float32 [n] for each of MODALITY_NAMES; NaN where there is no row. The age is not rounded to whole days, and is
        negative if `age` is.
    """
    days = np.where(has_row, age / MICROSECONDS_PER_DAY, np.nan).astype(np.float32)
    missing = {f"{name}_missing": np.float32(1) - values for name, values in has_modality.items()}
    return {"vector_age_days": days, **missing}


def compute_tag_features(
    has_row: NDArray[np.bool_], has_label: Mapping[str, NDArray[np.bool_]], has_category: NDArray[np.bool_] | None
) -> dict[str, Floats]:
    """Return the features of TAG_NAMES that can be computed, for n products.

    Args:
        has_row: bool [n], whether there is a row of tags.
        has_label: for each tag, bool [n], whether the row names a label; false where the tagger abstained. A tag of
            schema.TAGS that is not there has no feature; without `category` there is no `category_predicted` either.
        has_category: bool [n], whether the shop gave a category. None if that is unknown; then there is no
            `category_predicted`.

    Returns:
        float32 [n] for each of TAG_NAMES that can be computed, in that order; 1 or 0, NaN where there is no row.
    """
    features = {f"{tag}_abstained": _flag(~has_label[tag], has_row) for tag in TAGS if tag in has_label}
    if has_category is not None and "category" in has_label:
        features["category_predicted"] = _flag(has_label["category"] & ~has_category, has_row)
    return features


def _flag(values: NDArray[np.bool_], valid: NDArray[np.bool_]) -> Floats:
    """Return float32 [n], 1 where true and 0 where false; NaN where not valid."""
    return np.where(valid, values, np.nan).astype(np.float32)
