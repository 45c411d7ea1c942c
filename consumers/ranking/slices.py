"""The parts of the test rows for which a lift is reported separately."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.ranking.training_set import RankingTrainingSet
from feature_repo import schema

DAY = 86_400_000_000
"""In microseconds."""
CATEGORIES = 5
"""Number of most shown categories that get a slice."""
HEAD_SHARE = 0.8
"""Head products are the most shown ones that together have this share of the training impressions."""


def slice_test_rows(data: RankingTrainingSet, test: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Return the parts of the test rows (slices) for which a lift is reported separately. Slices can overlap.

    New products were never shown before the test; tail products were, but are no head products: the most shown ones
    that together have HEAD_SHARE of the impressions before the test. A product's age counts from its first listing or
    its first impression, whichever is earlier. Age stages are those of the predicted tags; categories are the
    CATEGORIES most shown ones in the test. An impression without a row of a view is in none of that view's slices. A
    slice is left out if its view is not joined, or if it has only clicked or only unclicked rows.

    Args:
        data: the joined log.
        test: mask of the test rows [n].

    Returns:
        Slice name to a mask among the test rows [test rows]. In the order new products, under 24 h, under 7 days, tail
        products, products without image, age stages from the youngest, categories from the most shown, ties by name.
    """
    product = data.product
    shown = np.bincount(product[~test], minlength=int(product.max()) + 1)
    by_rank = np.argsort(-shown, kind="stable")
    above = np.cumsum(shown[by_rank]) - shown[by_rank]
    is_head = np.zeros(len(shown), bool)
    is_head[by_rank] = above < HEAD_SHARE * shown.sum()
    is_new = shown == 0
    age_us = data.timestamp_us - _first_timestamps(data, product)
    parts = {
        "new products": is_new[product],
        "under 24 h": age_us < DAY,
        "under 7 days": age_us < 7 * DAY,
        "tail products": (~is_head & ~is_new)[product],
    }
    if embedding := data.views.get(schema.EMBEDDING_TABLE):
        parts["products without image"] = embedding.numbers("has_image") == 0
    if tags := data.views.get(schema.TAGS_TABLE):
        stage = tags.strings("child_age")
        for label in data.age_scale.stages:
            parts[f"age stage {label}"] = pc.equal(stage, label).fill_null(False).to_numpy()
    if catalogue := data.views.get(schema.CATALOGUE_TABLE):
        category = catalogue.strings("category")
        for label in _most_common(category, test):
            parts[f"category {label}"] = pc.equal(category, label).fill_null(False).to_numpy()
    clicked = data.clicked[test]
    masks = {name: rows[test] for name, rows in parts.items()}
    return {name: rows for name, rows in masks.items() if 0 < clicked[rows].sum() < rows.sum()}


def _first_timestamps(data: RankingTrainingSet, product: NDArray[np.int64]) -> NDArray[np.int64]:
    """When each impression's product was first listed or shown, whichever is earlier, in microseconds [n]."""
    first = np.full(int(product.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, product, data.timestamp_us)
    if view := data.views.get(schema.CATALOGUE_TABLE):
        valid = view.row_index >= 0
        np.minimum.at(first, product[valid], view.timestamp_us[view.row_index[valid]])
    return first[product]


def _most_common(column: pa.ChunkedArray, test: NDArray[np.bool_]) -> list[str]:
    """The CATEGORIES most frequent values of the test rows, nulls left out, ties by name."""
    counts = pc.value_counts(pc.drop_null(column.filter(pa.array(test))))
    by_count = sorted(counts.to_pylist(), key=lambda entry: (-entry["counts"], entry["values"]))
    return [entry["values"] for entry in by_count[:CATEGORIES]]
