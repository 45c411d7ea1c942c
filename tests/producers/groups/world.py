"""A generated catalogue of designs that several sellers offer, small enough for fast tests."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from feature_repo.arrow.take import matrix_to_lists
from feature_repo.pairs.labels import LabelledPairs

WIDTH = 16


@dataclass(frozen=True)
class GeneratedOffers:
    """n products, and the design of each."""

    products: pa.Table
    design: np.ndarray

    def judge_all(self) -> LabelledPairs:
        """Return every pair of products with its true answer."""
        left, right = np.triu_indices(len(self.design), 1)
        return LabelledPairs(left, right, self.design[left] == self.design[right], np.ones(len(left)))


def make_offers(designs: int, seed: int = 0, *, noise: float = 0.5) -> GeneratedOffers:
    """Return 1 to 3 products of each design: vectors with noise, a price, and a model number in half the titles."""
    rng = np.random.default_rng(seed)
    design = np.repeat(np.arange(designs), rng.integers(1, 4, designs))
    vectors = {}
    for name in ("image", "text"):
        latent = rng.normal(size=(designs, WIDTH))[design] + noise * rng.normal(size=(len(design), WIDTH))
        vectors[f"{name}_vector"] = matrix_to_lists(unit(latent))
    both = np.array([vectors["image_vector"].to_pylist(), vectors["text_vector"].to_pylist()])
    vectors["fused_vector"] = matrix_to_lists(unit(both.mean(axis=0)))
    vectors["similar_vector"] = matrix_to_lists(unit(0.7 * both[0] + 0.3 * both[1]))
    titles = [f"bottle model x{1000 + d}" if rng.random() < 0.5 else f"bottle nice {d % 7}" for d in design]
    price = (10 + 3 * rng.random(designs))[design] * np.exp(0.05 * rng.normal(size=len(design)))
    ids = [f"p{row:04d}" for row in range(len(design))]
    return GeneratedOffers(pa.table({"product_id": ids, "title": titles, "price": price, **vectors}), design)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
