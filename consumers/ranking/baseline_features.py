"""The baseline: everything a ranker has without looking at a picture or reading a title.

Strong on purpose. It knows ids as categories, how often user, product, category, brand and their pairs were shown and
clicked before, which modalities a product has, and the identity-only twins of every relational feature (`twins.py`); so
what multimodal features add to it is theirs alone, and not popularity, recency or identity in disguise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.ranking.click_counts import (
    MICROSECONDS_A_DAY,
    compute_days_since_click,
    count_before,
    index_clicks,
    smooth_rate,
)
from consumers.ranking.identity_controls import compute_identity_controls
from consumers.ranking.training_set import TrainingSet, encode_values
from feature_repo import schema
from feature_repo.schema import CATEGORY_SEPARATOR, IMPRESSIONS

NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
HOUR = 3_600_000_000
RATE_STRENGTH = 20.0
"""How many impressions the overall click rate counts for in a smoothed one."""


def compute_baseline(data: TrainingSet) -> dict[str, NDArray[Any]]:
    """Features of the baseline: float32 [n], and int32 [n] codes for categories."""
    user, product, time, clicked = data.user, data.product, data.time, data.clicked
    category, top_category, brand = (encode_values(column) for column in _attributes(data))
    everyone = np.zeros(len(time), np.int64)
    overall = _rate(everyone, time, clicked, np.zeros(len(time)), 1e-9)
    features: dict[str, NDArray[Any]] = {
        "user_id": user.astype(np.int32),
        "product_id": product.astype(np.int32),
        "category": category.astype(np.int32),
        "top_category": top_category.astype(np.int32),
        "brand": brand.astype(np.int32),
        "hour": (time // HOUR % 24).astype(np.float32),
        "weekday": (time // (24 * HOUR) % 7).astype(np.float32),
        "days_since_user_clicked": compute_days_since_click(index_clicks(user, time, clicked), time),
    }
    keys = {
        "user": user,
        "product": product,
        "category": category,
        "brand": brand,
        "user_product": _pair(user, product),
        "user_category": _pair(user, category),
        "user_brand": _pair(user, brand),
    }
    for name, key in keys.items():
        shown, clicks = count_before(key, time, clicked)
        features[f"{name}_shown"] = np.log1p(shown).astype(np.float32)
        features[f"{name}_clicks"] = clicks.astype(np.float32)
        features[f"{name}_rate"] = smooth_rate(shown, clicks, overall, RATE_STRENGTH)
    features |= compute_identity_controls(
        user, time, clicked, {"product": product, "category": category, "brand": brand}
    )
    return features | _product_features(data) | _context_features(data)


def _rate(
    key: NDArray[np.int64], time: NDArray[np.int64], clicked: NDArray[Any], prior: NDArray[Any], strength: float
) -> NDArray[np.float32]:
    shown, clicks = count_before(key, time, clicked)
    return smooth_rate(shown, clicks, prior, strength)


def _attributes(data: TrainingSet) -> tuple[pa.ChunkedArray, pa.ChunkedArray, pa.ChunkedArray]:
    view = data.views.get(schema.CATALOGUE_TABLE)
    if view is None:
        nothing = pa.chunked_array([pa.nulls(len(data.impressions), pa.string())])
        return nothing, nothing, nothing
    category = view.strings("category")
    top = pc.replace_substring_regex(category, f"{CATEGORY_SEPARATOR}.*", "")
    return category, top, view.strings("brand")


def _product_features(data: TrainingSet) -> dict[str, NDArray[np.float32]]:
    features: dict[str, NDArray[np.float32]] = {}
    if view := data.views.get(schema.CATALOGUE_TABLE):
        features["price"] = view.numbers("price")
        known = view.row >= 0
        features["days_since_listed"] = np.full(len(known), np.nan, np.float32)
        features["days_since_listed"][known] = (data.time[known] - view.since[view.row[known]]) / MICROSECONDS_A_DAY
    if view := data.views.get(schema.EMBEDDING_TABLE):
        features |= {name: view.numbers(name) for name in ("has_image", "has_text")}
    return features


def list_unused_columns(data: TrainingSet) -> list[str]:
    """The context columns of which no feature is made, each with its type: they hold neither numbers nor text."""
    return [f"{field.name} ({field.type})" for field in _context(data) if not _holds(field.type, NUMBERS + TEXTS)]


def map_context_columns(data: TrainingSet) -> dict[str, str]:
    """The column of the log behind each feature `context_N`."""
    return {f"context_{number}": field.name for number, field in enumerate(_context(data))}


def _context_features(data: TrainingSet) -> dict[str, NDArray[Any]]:
    """Whatever else the log says of an impression: numbers as they are, texts as categories.

    Numbered, for a column may be called like another feature, or by characters that LightGBM refuses in a name.
    """
    features: dict[str, NDArray[Any]] = {}
    for number, field in enumerate(_context(data)):
        column = data.impressions.column(field.name)
        if _holds(field.type, NUMBERS):
            features[f"context_{number}"] = column.cast(pa.float32(), safe=False).to_numpy()
        elif _holds(field.type, TEXTS):
            features[f"context_{number}"] = encode_values(column.cast(pa.string())).astype(np.int32)
    return features


def _context(data: TrainingSet) -> list[pa.Field]:
    return [field for field in data.impressions.schema if field.name not in IMPRESSIONS.names]


def _holds(held: pa.DataType, kinds: tuple[Callable[[pa.DataType], bool], ...]) -> bool:
    return any(kind(held.value_type if pa.types.is_dictionary(held) else held) for kind in kinds)


def _pair(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """One code for both; a null on the right is a value of its own."""
    return left * (int(right.max(initial=0)) + 2) + right + 1
