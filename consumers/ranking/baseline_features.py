"""The baseline: every feature that needs neither images nor titles.

The baseline is strong on purpose. It has ids as categories, earlier impressions and clicks of user, product, category,
brand and their pairs, the modalities of each product, and an identity-only counterpart of every relational feature
(`identity_controls.py`). What multimodal features add to it is therefore not popularity, recency or identity.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.ranking.click_counts import (
    MICROSECONDS_PER_DAY,
    compute_days_since_click,
    count_before,
    index_clicks,
    smooth_rate,
)
from consumers.ranking.identity_controls import compute_identity_controls
from consumers.ranking.training_set import RankingTrainingSet, encode_values
from feature_repo import schema
from feature_repo.schema import CATEGORY_SEPARATOR, IMPRESSIONS

NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
HOUR = 3_600_000_000
"""In microseconds."""
RATE_STRENGTH = 20.0
"""Number of impressions at the overall click rate that are added to smooth a click rate."""


def compute_baseline(data: RankingTrainingSet) -> dict[str, NDArray[Any]]:
    """Compute the features of the baseline. Clicks and impressions count only strictly before each row.

    Without the catalogue's view, categories and brand are missing in every row, and price and days since the listing
    are left out. Without the view of vectors, `has_image` and `has_text` are left out.

    Args:
        data: the joined log of n impressions.

    Returns:
        Feature name to float32 [n], NaN for missing, or to int32 category codes [n], -1 for missing. `hour` is from 0
        to 23 in UTC, `weekday` 0 on Thursdays. For each key, such as `user` or `user_brand`, `KEY_shown` is log(1 +
        impressions), `KEY_clicks` the number of clicks and `KEY_rate` the smoothed click rate; all unknown categories,
        and all unknown brands, count as one. The log's context columns are named `context_N`, as in
        `map_context_columns`.
    """
    user, product, timestamp_us, clicked = data.user, data.product, data.timestamp_us, data.clicked
    category, top_category, brand = (encode_values(column) for column in _attributes(data))
    overall = overall_rate(data)
    features: dict[str, NDArray[Any]] = {
        "user_id": user.astype(np.int32),
        "product_id": product.astype(np.int32),
        "category": category.astype(np.int32),
        "top_category": top_category.astype(np.int32),
        "brand": brand.astype(np.int32),
        "hour": (timestamp_us // HOUR % 24).astype(np.float32),
        "weekday": (timestamp_us // (24 * HOUR) % 7).astype(np.float32),
        "days_since_user_clicked": compute_days_since_click(index_clicks(user, timestamp_us, clicked), timestamp_us),
    }
    keys = {
        "user": user,
        "product": product,
        "category": category,
        "brand": brand,
        "user_product": pair_codes(user, product),
        "user_category": pair_codes(user, category),
        "user_brand": pair_codes(user, brand),
    }
    for name, key in keys.items():
        shown, clicks = count_before(key, timestamp_us, clicked)
        features[f"{name}_shown"] = np.log1p(shown).astype(np.float32)
        features[f"{name}_clicks"] = clicks.astype(np.float32)
        features[f"{name}_rate"] = smooth_rate(shown, clicks, overall, RATE_STRENGTH)
    identities = {"product": product, "category": category, "brand": brand}
    features |= compute_identity_controls(user, timestamp_us, clicked, identities)
    return features | _product_features(data) | _context_features(data)


def overall_rate(data: RankingTrainingSet) -> NDArray[np.float32]:
    """Return the click rate, from 0 to 1, of all impressions strictly before each row, float32 [n].

    It is 0 where there are none. Impressions of the same microsecond are not before each other.
    """
    everyone = np.zeros(len(data.timestamp_us), np.int64)
    shown, clicks = count_before(everyone, data.timestamp_us, data.clicked)
    return smooth_rate(shown, clicks, np.zeros(len(everyone)), 1e-9)


def pair_codes(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a code for each pair of codes, int64 [n]: equal for equal pairs, and for no others.

    The codes are not consecutive, and codes of two calls cannot be compared.

    Args:
        left: codes from 0 [n].
        right: codes from 0 [n]; -1 counts as a value of its own.
    """
    return left * (int(right.max(initial=0)) + 2) + right + 1


def _attributes(data: RankingTrainingSet) -> tuple[pa.ChunkedArray, pa.ChunkedArray, pa.ChunkedArray]:
    """Category, top category and brand of each impression's product [n]; nulls without a catalogue view."""
    view = data.views.get(schema.CATALOGUE_TABLE)
    if view is None:
        nulls = pa.chunked_array([pa.nulls(len(data.impressions), pa.string())])
        return nulls, nulls, nulls
    category = view.strings("category")
    top = pc.replace_substring_regex(category, f"{CATEGORY_SEPARATOR}.*", "")
    return category, top, view.strings("brand")


def _product_features(data: RankingTrainingSet) -> dict[str, NDArray[np.float32]]:
    """Price, days since the joined version, and the modalities of the product [n]; from the views that are joined."""
    features: dict[str, NDArray[np.float32]] = {}
    if view := data.views.get(schema.CATALOGUE_TABLE):
        features["price"] = view.numbers("price")
        valid = view.row_index >= 0
        age_us = data.timestamp_us[valid] - view.timestamp_us[view.row_index[valid]]
        features["days_since_listed"] = np.full(len(valid), np.nan, np.float32)
        features["days_since_listed"][valid] = age_us / MICROSECONDS_PER_DAY
    if view := data.views.get(schema.EMBEDDING_TABLE):
        features |= {name: view.numbers(name) for name in ("has_image", "has_text")}
    return features


def list_unused_columns(data: RankingTrainingSet) -> list[str]:
    """Return the context columns that give no feature, because they hold neither numbers nor text.

    Booleans and decimals count as numbers. A dictionary column counts by the type of its values. Context columns are
    those of the log beyond `schema.IMPRESSIONS`.

    Args:
        data: the joined log.

    Returns:
        `name (type)` of each such column, in the order of the log; empty if there are none.
    """
    return [f"{field.name} ({field.type})" for field in _context(data) if not _is_any(field.type, NUMBERS + TEXTS)]


def map_context_columns(data: RankingTrainingSet) -> dict[str, str]:
    """Return the log's column of each feature `context_N`, by the feature's name.

    N is the position among the context columns, from 0. Columns that give no feature are counted too.
    """
    return {f"context_{number}": field.name for number, field in enumerate(_context(data))}


def _context_features(data: RankingTrainingSet) -> dict[str, NDArray[Any]]:
    """The log's context columns: numbers unchanged, texts as categories.

    Features are numbered, because a column can have the name of another feature or characters that LightGBM rejects.
    """
    features: dict[str, NDArray[Any]] = {}
    for number, field in enumerate(_context(data)):
        column = data.impressions.column(field.name)
        if _is_any(field.type, NUMBERS):
            features[f"context_{number}"] = column.cast(pa.float32(), safe=False).to_numpy()
        elif _is_any(field.type, TEXTS):
            features[f"context_{number}"] = encode_values(column.cast(pa.string())).astype(np.int32)
    return features


def _context(data: RankingTrainingSet) -> list[pa.Field]:
    """The log's columns beyond `schema.IMPRESSIONS`, in their order."""
    return [field for field in data.impressions.schema if field.name not in IMPRESSIONS.names]


def _is_any(data_type: pa.DataType, kinds: tuple[Callable[[pa.DataType], bool], ...]) -> bool:
    """Whether a type, or the values of a dictionary type, are of one of the kinds."""
    value_type = data_type.value_type if pa.types.is_dictionary(data_type) else data_type
    return any(kind(value_type) for kind in kinds)
