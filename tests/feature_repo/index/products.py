"""Random products of an index, and a brute-force search over them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from feature_repo.index.filters import ProductFilter
from feature_repo.index.rows import INDEX_ROWS
from feature_repo.index.update import IndexedProducts

WIDTH = 8
CATEGORIES = ("服装>裙子", "服装>裤子", "玩具>积木")
WORDS = ("红色", "蓝色", "连衣裙", "积木", "dress", "boxes")


def make_products(rng: np.random.Generator, product_ids: Sequence[str]) -> IndexedProducts:
    """Return products with random values; a tenth has no image vector, and some values are null."""
    n = len(product_ids)
    matrices = {name: rng.normal(size=(n, WIDTH)).astype(np.float32) for name in ("image_vector", "text_vector")}
    for matrix in matrices.values():
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    matrices["image_vector"][rng.random(n) < 0.1] = np.nan
    rows = [
        {
            "product_id": product_id,
            "title": " ".join(rng.choice(WORDS, 3)),
            "category": rng.choice([*CATEGORIES, None]),
            "brand": rng.choice(["Acme", "Bear", None]),
            "price": None if rng.random() < 0.1 else float(rng.integers(1, 100)),
            "in_stock": rng.choice([True, False, None]),
            "tag_child_age": rng.choice(["1-3y", "3-6y", None]),
            "embedding_us": 1,
            "catalogue_us": 1,
        }
        for product_id in product_ids
    ]
    return IndexedProducts(pa.Table.from_pylist(rows, INDEX_ROWS), matrices, {})


def matches(row: dict, where: ProductFilter) -> bool:
    """Return whether a row meets a filter, condition by condition."""
    price, category = row["price"], row["category"]
    return (
        (
            not where.categories
            or any(category and (category == c or category.startswith(f"{c}>")) for c in where.categories)
        )
        and (not where.brands or row["brand"] in where.brands)
        and (where.price_min is None or (price is not None and price >= where.price_min))
        and (where.price_max is None or (price is not None and price <= where.price_max))
        and all(row[f"tag_{tag}"] == value for tag, value in where.tags.items())
        and (not where.in_stock or row["in_stock"] is True)
    )
