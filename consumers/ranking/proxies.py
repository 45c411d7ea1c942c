"""Quality figures of an encoder that need no ranker, for comparison with the lift.

    next-click hit rate   share of test clicks on a product that is among the NEAREST_SHARE of all products closest to
                          the user's last RECENT_CLICKS clicks, by the largest cosine; chance gives NEAREST_SHARE
    same-product recall   share of a product's other sellers among its SAME_PRODUCT_K nearest products, for generated
                          shops
    tag F1                macro F1 of the tags, on held-out labelled products

The first two are also given for products that the encoder was not trained on alone, the names with UNSEEN at the end:
figures over products that it was trained on flatter.

Whether a proxy predicts the lift can only be seen over many encoders: `consume proxies` gives a rank correlation
(Spearman) from MIN_ENCODERS encoders on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import spearmanr

from consumers.ranking.click_counts import index_clicks
from consumers.ranking.ground_truth import GroundTruth
from consumers.ranking.training_set import RankingTrainingSet
from feature_repo import schema
from feature_repo.errors import InvalidInputError
from feature_repo.evaluation.nearest_products import find_nearest_products
from feature_repo.features.similarity import normalize_rows
from feature_repo.files.json_text import parse_json
from feature_repo.schema import PRODUCT_ID

NEAREST_SHARE = 0.01
"""Share of all products with vectors that are near enough for a hit."""
RECENT_CLICKS = 10
"""Number of the user's last clicks that a product is compared with."""
SAME_PRODUCT_K = 10
"""Number of nearest products among which other sellers are looked for."""
MAX_SAMPLE = 1000
"""Maximum number of clicks, and of products, that are evaluated; larger sets are sampled with a fixed seed."""
MIN_ENCODERS = 8
"""Number of encoders from which on a rank correlation is given."""
UNSEEN = "_unseen"
NAMES = ("next_click_hit_rate", "same_product_recall", "tag_f1")

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def next_click_hit_rate(data: RankingTrainingSet, test: NDArray[np.bool_]) -> float:
    """Return how often the next click is among the products nearest to the user's last clicks, by the fused vector.

    It is a hit if fewer than NEAREST_SHARE of all products with vectors are nearer than the clicked one. A click counts
    if its product has a vector, was not clicked by the user before, and one of the user's last RECENT_CLICKS clicks has
    a vector. Products that the user clicked before are no candidates: they would be found by identity alone. Of more
    than MAX_SAMPLE clicks, a sample is evaluated, the same in each call. Clicks before the test are among the last
    clicks, and so are earlier ones of the test. Each product has its latest vector in the log, also for earlier rows.

    Args:
        data: the joined log; it must have the view product_embedding.
        test: mask of the test rows [n].

    Returns:
        A share from 0 to 1; NaN if no click counts.

    Raises:
        KeyError: product_embedding is not joined.
    """
    vectors, vector_of = select_latest_vectors(data)
    clicks = index_clicks(data.user, data.timestamp_us, data.clicked)
    has_vector = vector_of[data.product] >= 0
    rows = np.flatnonzero(test & (data.clicked == 1) & (clicks.before > 0) & has_vector)
    if len(rows) > MAX_SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_SAMPLE, replace=False))
    hits = []
    for row in rows:
        history = clicks.window(np.array([row]), max(RECENT_CLICKS, int(clicks.before[row])))[0]
        clicked = vector_of[data.product[clicks.rows[history[history >= 0]]]]
        target = vector_of[data.product[row]]
        recent = clicked[:RECENT_CLICKS]
        if target in clicked or not (recent >= 0).any():
            continue
        closest = (vectors @ vectors[recent[recent >= 0]].T).max(axis=1)
        closest[clicked[clicked >= 0]] = -2
        hits.append(float((closest > closest[target]).sum() < NEAREST_SHARE * len(vectors)))
    return float(np.mean(hits)) if hits else float("nan")


def find_unseen(data: RankingTrainingSet, trained: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Return which rows of a log are of a product that the encoder was not trained on [n].

    Args:
        data: the joined log.
        trained: ids of the products that the encoder was trained on.
    """
    is_trained = pc.is_in(data.impressions.column(PRODUCT_ID), value_set=trained.combine_chunks())
    return np.asarray(pc.invert(is_trained).to_numpy(), np.bool_)


def same_product_recall(data: RankingTrainingSet, truth: GroundTruth, rows: NDArray[np.bool_] | None = None) -> float:
    """Return which share of a product's other sellers is among its SAME_PRODUCT_K nearest products by the fused vector.

    Only products of the log that have a vector count. A product with more than SAME_PRODUCT_K other sellers reaches 1
    if all the nearest are among them. Of more than MAX_SAMPLE products, a sample is evaluated, the same in each call.

    Args:
        data: the joined log; it must have the view product_embedding.
        truth: its truth, which knows the sellers of each product.
        rows: mask of rows [n]; only their products are queries, whose sellers are looked for among all. None: all.

    Returns:
        A share from 0 to 1, averaged over products with another seller that has a vector; NaN if there is none.

    Raises:
        KeyError: product_embedding is not joined.
    """
    vectors, vector_of = select_latest_vectors(data)
    has_vector = vector_of[data.product] >= 0
    design = np.full(len(vectors), -1)
    design[vector_of[data.product[has_vector]]] = truth.same_product[truth.product[has_vector]]
    counts = np.bincount(design)
    is_query = np.ones(len(vectors), bool)
    if rows is not None:
        is_query[:] = False
        is_query[vector_of[data.product[has_vector & rows]]] = True
    queries = np.flatnonzero((counts[design] > 1) & is_query)
    if not len(queries):
        return float("nan")
    if len(queries) > MAX_SAMPLE:
        queries = np.sort(np.random.default_rng(0).choice(queries, MAX_SAMPLE, replace=False))
    top_k = min(SAME_PRODUCT_K, len(vectors) - 1)
    nearest = find_nearest_products(vectors[queries], vectors, queries, top_k)
    hits = (design[nearest] == design[queries, None]).sum(axis=1)
    return float(np.mean(hits / np.minimum(counts[design[queries]] - 1, SAME_PRODUCT_K)))


def select_latest_vectors(data: RankingTrainingSet) -> tuple[Floats, Ints]:
    """Return the fused vector of each product's latest joined version that has one, scaled to unit length.

    Args:
        data: the joined log; it must have the view product_embedding.

    Returns:
        Vectors, float32 [v, d], in ascending order of the product codes, and for each product code of the log the row
        of its vector, int64 [products]; -1 for a product without a vector.

    Raises:
        KeyError: product_embedding is not joined.
    """
    view = data.views[schema.EMBEDDING_TABLE]
    all_vectors = view.vectors("fused_vector")
    latest = np.full(int(data.product.max()) + 1, -1)
    valid = (view.row_index >= 0) & ~np.isnan(all_vectors[np.maximum(view.row_index, 0), 0])
    latest[data.product[valid]] = view.row_index[valid]  # rows are in time order, so the last assignment wins
    has_vector = latest >= 0
    return normalize_rows(all_vectors[latest[has_vector]]), np.where(has_vector, np.cumsum(has_vector) - 1, -1)


def read_points(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read an encoder's quality figures (proxies) and the lift from JSON files of `consume lift --json`.

    Args:
        files: the files, one for each measurement; several may be of one encoder.

    Returns:
        One dictionary for each file, in their order: `file` (its name without folder), `encoder`, the figures of NAMES,
        `lift` and `ci95` ([low, high]), and those of NAMES with UNSEEN that the file has. A figure that was not
        measured is None. Empty without files.

    Raises:
        InvalidInputError: a file cannot be read, is not JSON, has no proxies, or lacks the key of one of the figures.
    """
    points = []
    for file in files:
        try:
            proxies = parse_json(file.read_text())["proxies"]
            point = {"file": file.name, **{name: proxies[name] for name in ("encoder", *NAMES, "lift", "ci95")}}
            points.append(point | {name: value for name, value in proxies.items() if name.endswith(UNSEEN)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{file}: not a JSON file of `consume lift --json` with proxies ({type(error).__name__}: {error})"
            ) from error
    return points


def correlate_with_lift(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return Spearman's rank correlation of each quality figure of an encoder (proxy) with the lift, over encoders.

    An encoder with several points counts once, with their means.

    Args:
        points: points, as `read_points` returned them.

    Returns:
        Name of the proxy to its correlation from -1 to 1, in the order of NAMES. A proxy is left out if an encoder
        lacks it in any point, or if it (or the lift) is the same for all encoders. Empty for fewer than MIN_ENCODERS
        encoders, or if a point has no lift.
    """
    points_by_encoder: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        points_by_encoder.setdefault(point["encoder"], []).append(point)
    if len(points_by_encoder) < MIN_ENCODERS:
        return {}

    def means(name: str) -> NDArray[np.float64]:
        return np.array(
            [np.array([point[name] for point in each], np.float64).mean() for each in points_by_encoder.values()]
        )

    correlations = {}
    lifts = means("lift")
    for name in NAMES:
        values = means(name)
        if np.isfinite(values).all() and np.ptp(values) > 0 and np.ptp(lifts) > 0:
            correlations[name] = float(spearmanr(values, lifts).statistic)
    return correlations
