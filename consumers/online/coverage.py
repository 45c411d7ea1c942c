"""Online features that say what is missing for each candidate and how old its vector is.

    batch = reader.fetch("ranking", {"user_id": user, "product_id": candidates}, full_feature_names=True)
    compute_coverage(batch, now)["vector_age_days"]        # float32 [n]

feature_repo/features/missing.py defines the features; the offline ones are the same.
"""

from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import columns, timestamps
from feature_repo.errors import InvalidInputError
from feature_repo.features import missing
from feature_repo.online.decode import Status
from feature_repo.online.feature_batch import FeatureBatch, ViewRows


def compute_coverage(batch: FeatureBatch, now: datetime) -> dict[str, NDArray[np.float32]]:
    """Return what is missing for each of n products: the features of `missing.NAMES` by name, float32 [n] each.

    The age of the vectors is in days; each other feature is 1 where something is missing or predicted and 0 where not.
    Without `product_tags` in the batch, features of tags are left out; without `product_catalogue`,
    `category_predicted` is. A feature is NaN for a product whose row is stale, absent or failed: the row of
    `product_embedding` for MODALITY_NAMES, that of `product_tags` for TAG_NAMES.

    Args:
        batch: n rows with the view `product_embedding`, including `has_image` and `has_text`; whether its features have
            full names does not matter.
        now: the time of the request; an age is the time from the event timestamp of the embedding row to it, negative
            if the row is later. Without a time zone it is UTC.

    Raises:
        InvalidInputError: the batch has no `product_embedding` with `has_image` and `has_text`.
    """
    embedding = batch.views.get(schema.EMBEDDING_TABLE)
    if embedding is None or not {"has_image", "has_text"} <= embedding.rows.columns.keys():
        raise InvalidInputError(
            f"the batch has no {schema.EMBEDDING_TABLE} with has_image and has_text; fetch the whole view"
        )
    is_present = _is_present(embedding)
    age_us = timestamps.datetime_to_ticks(now, "us") - embedding.expand(embedding.rows.event_timestamp_us)
    has = {}
    for name in ("image", "text"):
        flags = embedding.expand(columns.to_numpy(embedding.rows.columns[f"has_{name}"])).astype(np.float32)
        has[name] = np.where(is_present, np.ma.filled(flags, np.nan), np.float32(np.nan))
    features = missing.compute_vector_features(age_us, is_present, has)
    tags = batch.views.get(schema.TAGS_TABLE)
    if tags is None:
        return features
    has_label = {tag: _has_value(tags, tag) for tag in schema.TAGS if tag in tags.rows.columns}
    catalogue = batch.views.get(schema.CATALOGUE_TABLE)
    has_category = None if catalogue is None else _has_value(catalogue, "category")
    return features | missing.compute_tag_features(_is_present(tags), has_label, has_category)


def _is_present(view: ViewRows) -> NDArray[np.bool_]:
    """Return which rows of the request have the status PRESENT, bool [n]."""
    return view.status() == Status.PRESENT


def _has_value(view: ViewRows, feature: str) -> NDArray[np.bool_]:
    """Return where a text feature is not null [n]."""
    return np.asarray(view.expand(np.asarray(columns.to_arrow(view.rows.columns[feature]).is_valid())))
