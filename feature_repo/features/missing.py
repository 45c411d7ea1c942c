"""What is not known of a product, what was predicted instead, and how old that is: features in their own right.

    vector_age_days         since the version whose vectors these are
    image_missing           1 where the product has no usable picture
    text_missing            1 where it has no title
    TAG_abstained           1 where the tagger would not say, for each of schema.TAGS
    category_predicted      1 where the shop named no category and the tagger did

A product without vectors has no age; one that no tagger has looked at has not been abstained from: NaN.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import TAGS

Floats = NDArray[np.float32]

MICROSECONDS_A_DAY = 86_400_000_000
MODALITY_NAMES = ("vector_age_days", "image_missing", "text_missing")
TAG_NAMES = (*(f"{tag}_abstained" for tag in TAGS), "category_predicted")
NAMES = (*MODALITY_NAMES, *TAG_NAMES)


def compute_vector_features(
    age: NDArray[np.integer], known: NDArray[np.bool_], has: Mapping[str, Floats]
) -> dict[str, Floats]:
    """MODALITY_NAMES of n products, float32 [n].

    Args:
        age: microseconds since the version holds [n].
        known: bool [n], whether there is a version.
        has: `image` and `text`: 1 where it is there, 0 where not, NaN where there is no version [n].
    """
    days = np.where(known, age / MICROSECONDS_A_DAY, np.nan).astype(np.float32)
    return {"vector_age_days": days, **{f"{name}_missing": np.float32(1) - values for name, values in has.items()}}


def compute_tag_features(
    tagged: NDArray[np.bool_], labelled: Mapping[str, NDArray[np.bool_]], category_told: NDArray[np.bool_] | None
) -> dict[str, Floats]:
    """TAG_NAMES of n products, float32 [n], NaN where no tagger has looked.

    Args:
        tagged: bool [n], whether there is a row of tags.
        labelled: of each tag, where it has a label [n].
        category_told: where the shop names a category [n]; None where it is not known whether it does.
    """
    features = {f"{tag}_abstained": _flag(~labelled[tag], tagged) for tag in TAGS if tag in labelled}
    if category_told is not None and "category" in labelled:
        features["category_predicted"] = _flag(labelled["category"] & ~category_told, tagged)
    return features


def _flag(values: NDArray[np.bool_], known: NDArray[np.bool_]) -> Floats:
    return np.where(known, values, np.nan).astype(np.float32)
