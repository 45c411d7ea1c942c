"""A frame with a known truth, and people who judge it."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from consumers.labels.frame import SamplingFrame


@dataclass(frozen=True)
class JudgedWorld:
    """A frame, and which of its pairs are the same product."""

    frame: SamplingFrame
    is_same: np.ndarray
    """[m], symmetric."""

    def judge(self, sample: pa.Table) -> pa.Table:
        """Return the sample with true answers."""
        row = {name: number for number, name in enumerate(self.frame.product_ids)}
        truth = {
            (a, b): same
            for a, b, same in zip(
                self.frame.anchor.tolist(), self.frame.recalled.tolist(), self.is_same.tolist(), strict=True
            )
        }
        labels = [
            "same" if truth[row[a], row[b]] else "different"
            for a, b in zip(sample["product_id_l"].to_pylist(), sample["product_id_r"].to_pylist(), strict=True)
        ]
        return sample.set_column(sample.column_names.index("label"), "label", pa.array(labels))


def make_world(products: int = 400, seed: int = 0) -> JudgedWorld:
    """Return products of three categories, each with some 8 recalled ones and their probability."""
    rng = np.random.default_rng(seed)
    left = np.repeat(np.arange(products), 4)
    right = (left + rng.integers(1, products, len(left))) % products
    key = np.unique(np.minimum(left, right) * products + np.maximum(left, right))
    left, right = key // products, key % products
    probability = rng.beta(0.4, 0.8, len(left))
    is_same = rng.random(len(left)) < probability
    anchor, recalled = np.concatenate([left, right]), np.concatenate([right, left])
    probability, is_same = np.tile(probability, 2), np.tile(is_same, 2)
    order = np.lexsort((-probability, anchor))
    anchor = anchor[order]
    frame = SamplingFrame(
        [f"p{row:04d}" for row in range(products)],
        [("toys", "shoes", "food")[min(row % 7, 2)] for row in range(products)],
        [f"title {row}" for row in range(products)],
        [""] * products,
        anchor,
        recalled[order],
        np.arange(len(anchor)) - np.searchsorted(anchor, anchor) + 1,
        probability[order],
        probability[order] > 0.6,
    )
    return JudgedWorld(frame, is_same[order])
