"""Figures of an encoder that need no ranker, beside the lift that a ranker had of it.

    next-click hit rate   how often what a user clicks next lies among the NEAREST share of all products, ranked by
                          their closest cosine to the user's last CLICKS clicks; NEAREST itself is chance
    same-product recall   share of a product's other sellers among its SAME nearest ones, where it is known who they are
    tag F1                macro-averaged, of held-out labelled products

Whether they foretell a lift is a question of many encoders: a table of points until there are CORRELATED of them, a
rank correlation (Spearman's) from then on.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from consumers.ranking.click_counts import index_clicks
from consumers.ranking.ground_truth import GroundTruth
from consumers.ranking.training_set import TrainingSet
from feature_repo import schema
from feature_repo.errors import VitrineError
from feature_repo.features.similarity import normalize_rows

NEAREST_SHARE = 0.01
RECENT_CLICKS = 10
SAME_PRODUCT_K = 10
MAX_SAMPLE = 1000
"""At most so many clicks, and so many products, are looked at."""
MIN_ENCODERS = 8
NAMES = ("next_click_hit_rate", "same_product_recall", "tag_f1")

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def next_click_hit_rate(data: TrainingSet, test: NDArray[np.bool_]) -> float:
    """The next-click hit rate of the fused vector on the test clicks; NaN where there is none to look at.

    Products that the user has clicked before are no candidates: they would be found by identity alone.
    """
    vectors, vector_of = select_latest_vectors(data)
    clicks = index_clicks(data.user, data.time, data.clicked)
    known = vector_of[data.product] >= 0
    rows = np.flatnonzero(test & (data.clicked == 1) & (clicks.before > 0) & known)
    if len(rows) > MAX_SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_SAMPLE, replace=False))
    hits = []
    for row in rows:
        history = clicks.window(np.array([row]), max(RECENT_CLICKS, int(clicks.before[row])))[0]
        clicked = vector_of[data.product[clicks.rows[history[history >= 0]]]]
        mine = vector_of[data.product[row]]
        recent = clicked[:RECENT_CLICKS]
        if mine in clicked or not (recent >= 0).any():
            continue
        closest = (vectors @ vectors[recent[recent >= 0]].T).max(axis=1)
        closest[clicked[clicked >= 0]] = -2
        hits.append(float((closest > closest[mine]).sum() < NEAREST_SHARE * len(vectors)))
    return float(np.mean(hits)) if hits else float("nan")


def same_product_recall(data: TrainingSet, truth: GroundTruth) -> float:
    """The same-product recall of the fused vector; NaN where no product has another seller with a vector."""
    vectors, vector_of = select_latest_vectors(data)
    design = np.full(len(vectors), -1)
    design[vector_of[data.product[vector_of[data.product] >= 0]]] = truth.same_product[
        truth.product[vector_of[data.product] >= 0]
    ]
    counts = np.bincount(design)
    asked = np.flatnonzero(counts[design] > 1)
    if not len(asked):
        return float("nan")
    if len(asked) > MAX_SAMPLE:
        asked = np.sort(np.random.default_rng(0).choice(asked, MAX_SAMPLE, replace=False))
    similar = vectors[asked] @ vectors.T
    similar[np.arange(len(asked)), asked] = -2
    nearest = np.argpartition(-similar, min(SAME_PRODUCT_K, len(vectors) - 1) - 1, axis=1)[:, :SAME_PRODUCT_K]
    found = (design[nearest] == design[asked, None]).sum(axis=1)
    return float(np.mean(found / np.minimum(counts[design[asked]] - 1, SAME_PRODUCT_K)))


def select_latest_vectors(data: TrainingSet) -> tuple[Floats, Ints]:
    """Unit fused vectors of the products' latest joined versions [v, d], and each product's row of it, -1 for none."""
    view = data.views[schema.EMBEDDING_TABLE]
    every = view.vectors("fused_vector")
    latest = np.full(int(data.product.max()) + 1, -1)
    known = (view.row >= 0) & ~np.isnan(every[np.maximum(view.row, 0), 0])
    latest[data.product[known]] = view.row[known]  # rows are in time order: the last one stays
    has = latest >= 0
    return normalize_rows(every[latest[has]]), np.where(has, np.cumsum(has) - 1, -1)


def read_points(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The proxies and the lift in each of several JSON files of `consume lift --json`.

    Raises:
        VitrineError: a file cannot be read or holds no proxies.
    """
    points = []
    for file in files:
        try:
            proxies = json.loads(file.read_text())["proxies"]
            points.append({"file": file.name, **{name: proxies[name] for name in ("encoder", *NAMES, "lift", "ci95")}})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VitrineError(
                f"{file}: no figures of `consume lift --json` with proxies ({type(error).__name__}: {error})"
            ) from error
    return points


def correlate_with_lift(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Spearman's rank correlation of each proxy with the lift, over encoders; empty below CORRELATED encoders.

    An encoder with several points counts once, by their means. A proxy that some encoder lacks, or that is the same of
    all, is left out: it has no rank correlation.
    """
    of_encoder: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        of_encoder.setdefault(point["encoder"], []).append(point)
    if len(of_encoder) < MIN_ENCODERS:
        return {}

    def means(name: str) -> NDArray[np.float64]:
        return np.array([np.array([one[name] for one in its], np.float64).mean() for its in of_encoder.values()])

    found = {}
    lifts = means("lift")
    for name in NAMES:
        values = means(name)
        if np.isfinite(values).all() and np.ptp(values) > 0 and np.ptp(lifts) > 0:
            found[name] = float(spearmanr(values, lifts).statistic)
    return found
