"""Trains the pair verifier on judged pairs, with out-of-fold predictions of every pair."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.errors import InvalidInputError
from feature_repo.pairs.features import PAIR_FEATURES, compute_pair_features
from feature_repo.pairs.labels import LabelledPairs
from feature_repo.pairs.metric import PairMetric, fit_metric
from feature_repo.pairs.prepared import PreparedProducts
from feature_repo.pairs.title_statistics import TitleStatistics
from feature_repo.pairs.verifier import PairVerifier

if TYPE_CHECKING:
    import lightgbm

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

FOLDS = 5
MIN_PAIRS = 20
"""Pairs of each answer that a training needs."""
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.04,
    "num_leaves": 9,
    "min_data_in_leaf": 20,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.5,
    "lambda_l2": 1.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
ROUNDS = 300


@dataclass(frozen=True)
class TrainedVerifier:
    """A verifier and its quality."""

    verifier: PairVerifier
    out_of_fold: Floats
    """[m], calibrated probability of each judged pair by a model that saw neither of its products' pairs."""
    f1: float
    """F1 of those probabilities at the threshold, each pair weighted by 1 / inclusion probability."""


def train_verifier(
    products: PreparedProducts,
    statistics: TitleStatistics,
    pairs: LabelledPairs,
    *,
    encoder_version: str,
    seed: int,
    now: datetime,
) -> TrainedVerifier:
    """Train, calibrate and choose the threshold.

    Products that judged pairs call the same are in one fold, so a design is never on both sides. The calibration and
    the threshold come from predictions out of fold; the returned classifier is trained on all pairs.

    Args:
        products: n products, prepared with `statistics`.
        statistics: how rare words are.
        pairs: judged pairs, whose rows are of `products`.
        encoder_version: of the vectors; "" without any.
        seed: of folds and trees.
        now: with a time zone.

    Raises:
        InvalidInputError: there are fewer than MIN_PAIRS pairs of one answer.
    """
    counts = int(pairs.is_same.sum()), int((~pairs.is_same).sum())
    if min(counts) < MIN_PAIRS:
        raise InvalidInputError(
            f"{counts[0]} pairs are the same product and {counts[1]} are not; at least {MIN_PAIRS} of each are needed"
        )
    fold = _assign_folds(len(products.words), pairs, seed)
    odds, predictions = np.zeros(len(pairs.left)), np.zeros(len(pairs.left))
    for number in range(FOLDS):
        touches = (fold[pairs.left] == number) | (fold[pairs.right] == number)
        if touches.any() and (pairs.is_same & ~touches).any() and (~pairs.is_same & ~touches).any():
            metric, text = _fit(products, pairs, ~touches, seed)
            rows = np.flatnonzero(touches)
            odds[rows] += _predict(products, metric, text, pairs.left[rows], pairs.right[rows])
            predictions[rows] += 1
    odds /= np.maximum(predictions, 1)
    slope, intercept = fit_calibration(odds, pairs.is_same, pairs.weight)
    probability = (1 / (1 + np.exp(-(slope * odds + intercept)))).astype(np.float32)
    threshold, f1 = choose_threshold(probability, pairs.is_same, pairs.weight)
    metric, text = _fit(products, pairs, np.ones(len(pairs.left), bool), seed)
    trained_us = int(now.astimezone(UTC).timestamp() * 1_000_000)
    verifier = PairVerifier(statistics, metric, text, slope, intercept, threshold, encoder_version, trained_us)
    return TrainedVerifier(verifier, probability, f1)


def train_context(context: Floats, pairs: LabelledPairs, products: int, *, seed: int) -> tuple[str, float, float]:
    """Train the classifier that decides pairs by their context, and choose the threshold of groups.

    Args:
        context: [m, len(CONTEXT_FEATURES)], of the judged pairs, from probabilities out of fold.
        pairs: the m judged pairs.
        products: number of products.
        seed: of folds and trees.

    Returns:
        LightGBM's text, the threshold, and the weighted F1 at it, both from predictions out of fold.
    """
    fold = _assign_folds(products, pairs, seed)
    total, predictions = np.zeros(len(pairs.left)), np.zeros(len(pairs.left))
    for number in range(FOLDS):
        touches = (fold[pairs.left] == number) | (fold[pairs.right] == number)
        if touches.any() and (pairs.is_same & ~touches).any() and (~pairs.is_same & ~touches).any():
            model = _fit_trees(context, pairs, ~touches, seed)
            total[touches] += np.asarray(model.predict(context[touches], num_threads=1))
            predictions[touches] += 1
    probability = (total / np.maximum(predictions, 1)).astype(np.float32)
    threshold, f1 = choose_threshold(probability, pairs.is_same, pairs.weight)
    return _fit_trees(context, pairs, np.ones(len(context), bool), seed).model_to_string(), threshold, f1


def choose_threshold(probability: Floats, is_same: Bools, weight: NDArray[np.float64]) -> tuple[float, float]:
    """Return the threshold with the largest weighted F1, and that F1. Pairs at or above it count as the same.

    The threshold lies midway between two neighbouring probabilities.
    """
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(weight[order] * is_same[order])
    taken = np.cumsum(weight[order])
    f1 = 2 * hits / (taken + hits[-1])
    ends = np.append(np.diff(probability[order]) != 0, True)
    best = int(np.argmax(np.where(ends, f1, -1)))
    following = probability[order][best + 1] if best + 1 < len(order) else 0.0
    return float((probability[order][best] + following) / 2), float(f1[best])


def fit_calibration(odds: NDArray[np.float64], is_same: Bools, weight: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and intercept of the calibration of log-odds [m] (Platt, 1999)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(odds[:, None], is_same, sample_weight=weight)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def prepare_catalogue(products: pa.Table) -> tuple[PreparedProducts, TitleStatistics]:
    """Return products ready to be compared, and how rare the words of their titles are."""
    titles = products["title"].to_pylist() if "title" in products.column_names else [None] * len(products)
    statistics = TitleStatistics.fit(titles)
    return PreparedProducts.prepare(products, statistics), statistics


def _fit(products: PreparedProducts, pairs: LabelledPairs, used: Bools, seed: int) -> tuple[PairMetric, str]:
    """Train the learned spaces and the classifier on some of the pairs; return the classifier as text."""
    rows = np.flatnonzero(used & pairs.is_same)
    metric = fit_metric(products.list_metric_columns(), pairs.left[rows], pairs.right[rows])
    features = np.full((len(pairs.left), len(PAIR_FEATURES)), np.nan, np.float32)
    features[used] = compute_pair_features(products.with_metric(metric), pairs.left[used], pairs.right[used])
    return metric, _fit_trees(features, pairs, used, seed).model_to_string()


def _fit_trees(features: Floats, pairs: LabelledPairs, used: Bools, seed: int) -> "lightgbm.Booster":
    """Train a classifier on some of the pairs."""
    import lightgbm

    data = lightgbm.Dataset(features[used], pairs.is_same[used], weight=pairs.weight[used])
    return lightgbm.train({**PARAMETERS, "seed": seed}, data, ROUNDS)


def _predict(
    products: PreparedProducts, metric: PairMetric, text: str, left: Int64, right: Int64
) -> NDArray[np.float64]:
    """Return the log-odds of pairs."""
    import lightgbm

    features = compute_pair_features(products.with_metric(metric), left, right)
    return np.asarray(lightgbm.Booster(model_str=text).predict(features, raw_score=True, num_threads=1))


def _assign_folds(products: int, pairs: LabelledPairs, seed: int) -> Int64:
    """Return a fold for each product; products that are linked by pairs of the same product share one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    left, right = pairs.left[pairs.is_same], pairs.right[pairs.is_same]
    links = coo_matrix((np.ones(len(left)), (left, right)), shape=(products, products))
    count, component = connected_components(links, directed=False)
    return np.random.default_rng(seed).integers(0, FOLDS, count)[component]
