"""The parts of the test on which a lift is looked at by itself."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.ranking.training_set import TrainingSet
from feature_repo import schema
from feature_repo.schema import CHILD_AGES

DAY = 86_400_000_000
CATEGORIES = 5
HEAD_SHARE = 0.8
"""The products that got this share of the training impressions are the head; the others seen in it are the tail."""


def slice_test_rows(data: TrainingSet, test: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Name to which test rows [test rows]; a slice without a click, or without anything else, is left out.

    New are products that were never shown before the test; younger than a day or a week those listed (else first
    shown) so shortly before the impression.
    """
    product = data.product
    shown = np.bincount(product[~test], minlength=int(product.max()) + 1)
    by_rank = np.argsort(-shown, kind="stable")
    above = np.cumsum(shown[by_rank]) - shown[by_rank]
    head = np.zeros(len(shown), bool)
    head[by_rank] = above < HEAD_SHARE * shown.sum()
    new = shown == 0
    age = data.time - _listed(data, product)
    parts = {
        "new products": new[product],
        "under 24 h": age < DAY,
        "under 7 days": age < 7 * DAY,
        "tail products": (~head & ~new)[product],
    }
    if embedding := data.views.get(schema.EMBEDDING_TABLE):
        parts["products without image"] = embedding.numbers("has_image") == 0
    if tags := data.views.get(schema.TAGS_TABLE):
        stage = tags.strings("child_age")
        for label in CHILD_AGES:
            parts[f"age stage {label}"] = pc.equal(stage, label).fill_null(False).to_numpy()
    if catalogue := data.views.get(schema.CATALOGUE_TABLE):
        for label in _commonest(catalogue.strings("category"), test):
            parts[f"category {label}"] = pc.equal(catalogue.strings("category"), label).fill_null(False).to_numpy()
    clicked = data.clicked[test]
    both = {name: rows[test] for name, rows in parts.items()}
    return {name: rows for name, rows in both.items() if 0 < clicked[rows].sum() < rows.sum()}


def _listed(data: TrainingSet, product: NDArray[np.int64]) -> NDArray[np.int64]:
    """When each impression's product was first listed, in microseconds [n]; where no view says, when first shown."""
    first = np.full(int(product.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, product, data.time)
    if view := data.views.get(schema.CATALOGUE_TABLE):
        known = view.row >= 0
        np.minimum.at(first, product[known], view.since[view.row[known]])
    return first[product]


def _commonest(column: pa.ChunkedArray, test: NDArray[np.bool_]) -> list[str]:
    """The CATEGORIES most shown values of a column in the test."""
    counts = pc.value_counts(pc.drop_null(column.filter(pa.array(test))))
    by_count = sorted(counts.to_pylist(), key=lambda entry: (-entry["counts"], entry["values"]))
    return [entry["values"] for entry in by_count[:CATEGORIES]]
