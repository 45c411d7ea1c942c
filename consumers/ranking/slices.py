"""The parts of the test on which a lift is looked at by itself."""

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.ranking.training_set import TrainingSet
from feature_repo.schema import CHILD_AGES

HEAD_SHARE = 0.8
"""The products that got this share of the training impressions are the head; the others seen in it are the tail."""


def slices(data: TrainingSet, test: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Name to which test rows [test rows]; a slice without a row is left out."""
    product = data.product
    shown = np.bincount(product[~test], minlength=int(product.max()) + 1)
    by_rank = np.argsort(-shown, kind="stable")
    above = np.cumsum(shown[by_rank]) - shown[by_rank]
    head = np.zeros(len(shown), bool)
    head[by_rank] = above < HEAD_SHARE * shown.sum()
    new = shown == 0
    parts = {"new products": new[product], "tail products": (~head & ~new)[product]}
    if embedding := data.views.get("product_embedding"):
        parts["products without image"] = embedding.numbers("has_image") == 0
    if tags := data.views.get("product_tags"):
        stage = tags.strings("child_age")
        for label in CHILD_AGES:
            parts[f"age stage {label}"] = pc.equal(stage, label).fill_null(False).to_numpy()
    return {name: rows[test] for name, rows in parts.items() if rows[test].any()}
