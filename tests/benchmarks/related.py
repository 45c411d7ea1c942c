"""Similar products on the generated shop: share of the first ten that are truly similar, by the weight of the picture.

    python -m tests.benchmarks.related --shop demo/shop

The store, which FEAST_FS_YAML_FILE_PATH names, needs `produce index`. Two products are similar if they have one
category and at least two of colour, pattern and emblem in common, and are the same if they have one design, which is
left out. Weights are learned from the truth about PAIRS pairs of the first half of the products, drawn from the nearest
by picture or title; figures are of QUERIES products of the other half. Intervals resample these products.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
import typer

from consumers.search.related import rank_similar
from consumers.search.similarity_weights import SimilarityWeights, compute_cosines, fit_weights
from feature_repo import config
from feature_repo.index.product_index import ProductIndex, open_index
from feature_repo.index.production import find_production_folder
from feature_repo.offline import production

ATTRIBUTES = ("colour", "pattern", "emblem")
QUERIES, PAIRS, NEAREST, TOP_K = 1_000, 2_000, 50, 10


def read_truth(shop: Path, index: ProductIndex) -> dict[str, np.ndarray]:
    """Return category, design and attributes of each row of an index."""
    truth = pq.read_table(shop / "truth" / "products.parquet").to_pydict()
    rows = index.find_rows(truth["product_id"])
    columns = {}
    for name in ("category", "design_id", *ATTRIBUTES):
        columns[name] = np.empty(len(index.flags), object)
        columns[name][rows[rows >= 0]] = np.array(truth[name], object)[rows >= 0]
    return columns


def is_similar(truth: dict[str, np.ndarray], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    common = sum((truth[name][left] == truth[name][right]).astype(int) for name in ATTRIBUTES)
    return (truth["category"][left] == truth["category"][right]) & (common >= 2)


def draw_labels(index: ProductIndex, truth: dict[str, np.ndarray], seed: int) -> SimilarityWeights:
    """Return weights from the truth about pairs of products of the first half."""
    rng = np.random.default_rng(seed)
    half = len(index.flags) // 2
    left, right = [], []
    for row in rng.choice(half, PAIRS, replace=False).tolist():
        vector = ("image_vector", "text_vector")[int(rng.integers(2))]
        query = index.take_vectors(vector, np.array([row]))[0]
        near = index.search(vector, query, NEAREST)[0] if not np.isnan(query[0]) else np.empty(0, int)
        near = near[(near != row) & (near < half)]
        if len(near):
            left.append(row)
            right.append(int(rng.choice(near)))
    a, b = np.array(left), np.array(right)
    cosines = np.stack([compute_cosines(index, vector, a, b) for vector in ("image_vector", "text_vector")])
    is_like = is_similar(truth, a, b) | (truth["design_id"][a] == truth["design_id"][b])
    return fit_weights(cosines, is_like, np.ones(len(a)), truth["category"][a].tolist())


def main(
    shop: Annotated[Path, typer.Option(help="The folder of the generated shop, with its truth.")],
    seed: Annotated[int, typer.Option(help="Of the products and the labels.")] = 0,
) -> None:
    settings = config.load()
    index = open_index(find_production_folder(settings.local, production.read_version(settings.offline)))
    truth = read_truth(shop, index)
    learned = draw_labels(index, truth, seed)
    print(f"learned from {learned.labels:,} pairs: {learned.image} {learned.by_category}")
    n = len(index.flags)
    queries = np.random.default_rng(seed + 1).choice(np.arange(n // 2, n), QUERIES, replace=False)
    ways = {f"picture {weight}": SimilarityWeights(weight) for weight in (0.0, 0.3, 0.5, 0.7, 1.0)}
    ways["learned"] = learned
    shares = {}
    for name, weights in ways.items():
        hits = []
        for row in queries.tolist():
            same = np.flatnonzero(truth["design_id"] == truth["design_id"][row])
            found, _ = rank_similar(index, row, same, weights, top_k=TOP_K)
            hits.append(is_similar(truth, np.full(len(found), row), found).mean())
        shares[name] = np.array(hits)
    drawn = np.random.default_rng(0).integers(0, QUERIES, (1000, QUERIES))
    for name, values in shares.items():
        low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
        gain = values - shares["picture 0.7"]
        least, most = np.quantile(gain[drawn].mean(axis=1), (0.025, 0.975))
        print(
            f"{name}: precision@{TOP_K} {values.mean():.3f} [{low:.3f}, {high:.3f}], "
            f"{gain.mean():+.3f} [{least:+.3f}, {most:+.3f}] over 0.7"
        )


if __name__ == "__main__":
    typer.run(main)
