"""Trains the pair verifier and scores pairs, in memory.

`train_matcher` trains a verifier on judged pairs; `score_candidates` scores each pair on its own, and `score_context`
scores it again with the other pairs of its products.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow.take import to_matrix
from feature_repo.pairs.features import PAIRS_PER_BLOCK
from feature_repo.pairs.labels import LabelledPairs
from feature_repo.pairs.metric import PairMetric
from feature_repo.pairs.picture import EDGES
from feature_repo.pairs.prepared import PreparedProducts
from feature_repo.pairs.verifier import PairVerifier
from producers.groups.candidates import TOP_K, find_candidates
from producers.groups.context import compute_context
from producers.groups.train import prepare_catalogue, train_context, train_verifier

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]

CANDIDATE_SPACES = ("picture", "fused", "similar", "text")
"""Spaces in which candidates are near: the learned one of the pictures, and the encoder's."""


@dataclass(frozen=True)
class MatcherSummary:
    """A trained verifier and its quality."""

    verifier: PairVerifier
    pair_f1: float
    """F1 of single pairs at the verifier's threshold, out of fold, weighted by inclusion."""
    group_f1: float
    """F1 of the same pairs with their context."""
    pairs: int
    """Judged pairs that were learned from."""


def train_matcher(
    products: pa.Table, pairs: LabelledPairs, *, encoder_version: str, seed: int, now: datetime, top_k: int = TOP_K
) -> MatcherSummary:
    """Train the verifier, then the classifier that decides pairs by their context in the whole catalogue.

    Args:
        products: n products with the columns of `PreparedProducts.prepare`.
        pairs: judged pairs of them.
        encoder_version: of the vectors; "" without any.
        seed: of folds and trees.
        now: with a time zone.
        top_k: candidates of a product in each space, as many as there will be when groups are made: contexts depend on
            their number. They are found exactly, as by an index up to its size of exact search.

    Raises:
        InvalidInputError: there are too few pairs of one answer.
    """
    prepared, statistics = prepare_catalogue(products)
    trained = train_verifier(prepared, statistics, pairs, encoder_version=encoder_version, seed=seed, now=now)
    verifier = trained.verifier
    prepared = prepared.with_metric(verifier.metric)
    n = len(products)
    spaces = list_spaces(products, verifier.metric)
    keys = [
        left * n + right for left, right in (find_candidates(spaces, np.arange(n), top_k=top_k), _sort_sides(pairs))
    ]
    key = np.union1d(*keys)
    probability = verifier.score_pairs(prepared, key // n, key % n)
    judged = np.searchsorted(key, keys[1])
    probability[judged] = trained.out_of_fold
    context = compute_context(key // n, key % n, probability, n, judged)
    text, threshold, f1 = train_context(context, pairs, n, seed=seed)
    verifier = replace(verifier, context_text=text, group_threshold=threshold)
    return MatcherSummary(verifier, trained.f1, f1, len(pairs.left))


def score_candidates(
    take_products: Callable[[Int64], pa.Table],
    left: Int64,
    right: Int64,
    verifier: PairVerifier,
    progress: Callable[[int], None] = lambda pairs: None,
) -> Floats:
    """Return the probability of each of m pairs on its own, float32 [m]. Only products of the pairs are prepared.

    Args:
        take_products: returns some products, by their rows, with the columns of `PreparedProducts.prepare`.
        left: [m], rows of the products.
        right: [m], likewise.
        verifier: of the encoder version of the vectors.
        progress: called with the number of scored pairs.
    """
    involved = np.unique(np.concatenate([left, right]))
    prepared = PreparedProducts.prepare(take_products(involved), verifier.statistics)
    prepared = prepared.with_metric(verifier.metric)
    a, b = np.searchsorted(involved, left), np.searchsorted(involved, right)
    probability = np.empty(len(left), np.float32)
    for start in range(0, len(left), PAIRS_PER_BLOCK):
        block = slice(start, start + PAIRS_PER_BLOCK)
        probability[block] = verifier.score_pairs(prepared, a[block], b[block])
        progress(min(start + PAIRS_PER_BLOCK, len(left)))
    return probability


def score_context(
    left: Int64, right: Int64, probability: Floats, products: int, verifier: PairVerifier, chosen: Int64 | None = None
) -> Floats:
    """Return the probability of each chosen one of m pairs given the others, float32 [chosen]; 0 stays 0.

    Args:
        left: [m], rows of products.
        right: [m], likewise.
        probability: [m], of each pair on its own.
        products: number of products.
        verifier: with a classifier for contexts.
        chosen: positions of pairs; None: all.
    """
    chosen = np.arange(len(left)) if chosen is None else chosen
    if not len(chosen):
        return np.empty(0, np.float32)
    context = compute_context(left, right, probability, products, chosen)
    decided = np.asarray(verifier.context_booster.predict(context, num_threads=1), np.float32)
    return np.where(probability[chosen] > 0, decided, np.float32(0))


def list_spaces(products: pa.Table, metric: PairMetric) -> dict[str, Floats]:
    """Return the vectors of CANDIDATE_SPACES, as far as there are any, [n, d] by name."""
    return project_spaces(_read_columns(products), metric)


def _read_columns(products: pa.Table) -> dict[str, Floats]:
    """Return the vectors and pictures of products, [n, d] by name; names that no product has are left out."""
    return {
        name: to_matrix(products[column])
        for name, column in (
            ("image", "image_vector"),
            ("text", "text_vector"),
            ("fused", "fused_vector"),
            ("similar", "similar_vector"),
            ("pixels", "picture"),
        )
        if column in products.column_names and products[column].null_count < len(products)
    }


def project_spaces(columns: dict[str, Floats], metric: PairMetric) -> dict[str, Floats]:
    """Return the vectors of CANDIDATE_SPACES, as far as there are any, [n, d] by name.

    Args:
        columns: `image`, `text`, `fused`, `similar` and `pixels` (of `describe_picture`), [n, d]; any may be missing.
        metric: the learned spaces.
    """
    if "pixels" in columns:
        columns = columns | {"edges": columns["pixels"][:, :EDGES], "colours": columns["pixels"][:, EDGES:]}
    spaces = {
        **columns,
        **metric.project({name: columns[name] for name in columns if name not in ("fused", "similar")}),
    }
    return {name: spaces[name] for name in CANDIDATE_SPACES if name in spaces}


def _sort_sides(pairs: LabelledPairs) -> tuple[Int64, Int64]:
    return np.minimum(pairs.left, pairs.right), np.maximum(pairs.left, pairs.right)
