"""The features of a pair of products, from which the verifier decides whether they are the same.

All features are symmetric: exchanging the two products does not change them. NaN means unknown: one of the products
lacks the column, the vector or the word. Two products without images are therefore not two products with different
images.
"""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from feature_repo.pairs.measures import MEASURES, VETO_MEASURES
from feature_repo.pairs.metric import SPACES
from feature_repo.pairs.prepared import VECTORS, PreparedProducts
from feature_repo.pairs.title_words import compare_model_numbers

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]

VECTOR_FEATURES = (
    *(f"{name}_cosine" for name in VECTORS),  # of the encoder's vectors
    *(f"{name}_learned" for name in SPACES),  # cosines in the learned spaces
    "same_image",  # 1 if the picture files are equal
)
TITLE_FEATURES = (
    "title_words",  # cosine of the TF-IDF words of the titles
    "title_grams",  # cosine of the TF-IDF runs of 3 to 5 characters
    "text_words",  # as title_words, of title and description
    "title_shared_low",  # weight of the shared words as a share of all words of a title: the smaller of the two
    "title_shared_high",  # the larger of the two
    "title_rarest_shared",  # weight of the rarest word that both titles have
    "title_rarest_alone_low",  # weight of the rarest word that the other title lacks: the smaller of the two
    "title_rarest_alone_high",
    "text_shared_low",  # the same of title and description
    "text_shared_high",
    "text_rarest_shared",
    "text_rarest_alone_low",
    "text_rarest_alone_high",
    "title_in_text_low",  # weight share of the words of a title that occur anywhere in the other text, without spaces
    "title_in_text_high",
    "model_similarity",  # of the model numbers of the titles
    "model_similarity_text",  # of a title and the other's title and description: the larger of the two
    "models_low",  # model numbers of a title: the smaller of the two numbers
    "models_high",
    "numbers_shared",  # numbers of both titles, as a share of the numbers of either
    "first_word_equal",
    "words_low",  # words of a title: the smaller of the two numbers
    "words_high",
)
FACT_FEATURES = ("brand_equal", "brand_in_title", "category_shared", "price_ratio")
MEASURE_FEATURES = tuple(f"{name}_agrees" for name in MEASURES)
PAIR_FEATURES = (*VECTOR_FEATURES, *TITLE_FEATURES, *FACT_FEATURES, *MEASURE_FEATURES)
"""Names of the columns that `compute_pair_features` returns, in their order."""

PAIRS_PER_BLOCK = 20_000
"""Pairs that are compared at once, so that memory does not grow with their number."""


def compute_pair_features(products: PreparedProducts, left: Int64, right: Int64) -> Floats:
    """Return float32 [m, len(PAIR_FEATURES)] of m pairs.

    Args:
        products: n products.
        left: [m], rows of the products.
        right: [m], likewise.
    """
    features = np.empty((len(left), len(PAIR_FEATURES)), np.float32)
    for start in range(0, len(left), PAIRS_PER_BLOCK):
        block = slice(start, start + PAIRS_PER_BLOCK)
        columns = _compare(products, left[block], right[block])
        for i, name in enumerate(PAIR_FEATURES):
            features[block, i] = columns[name]
    return features


def has_veto(features: Floats) -> NDArray[np.bool_]:
    """Return for each pair whether a measure of VETO_MEASURES is stated differently, bool [m]."""
    columns = [PAIR_FEATURES.index(f"{name}_agrees") for name in VETO_MEASURES]
    return (features[:, columns] == 0).any(axis=1)


def _compare(products: PreparedProducts, left: Int64, right: Int64) -> dict[str, NDArray]:
    """Return the features by name, each [m]."""
    columns: dict[str, NDArray] = {}
    unknown = np.full(len(left), np.nan, np.float32)
    for name in VECTORS:
        vectors = products.vectors.get(name)
        columns[f"{name}_cosine"] = unknown if vectors is None else (vectors[left] * vectors[right]).sum(axis=1)
    for name in SPACES:
        vectors = products.learned.get(name)
        columns[f"{name}_learned"] = unknown if vectors is None else (vectors[left] * vectors[right]).sum(axis=1)
    is_known = (products.image[left] >= 0) & (products.image[right] >= 0)
    columns["same_image"] = np.where(is_known, products.image[left] == products.image[right], np.nan)
    for name, rows in (("title_words", products.title), ("title_grams", products.grams), ("text_words", products.text)):
        columns[name] = _sum_rows(rows[left].multiply(rows[right]))
    columns |= _compare_weights("title", products.title_weights, left, right)
    columns |= _compare_weights("text", products.text_weights, left, right)
    rows = [_compare_words(products, a, b) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    for name in rows[0] if rows else ():
        columns[name] = np.array([row[name] for row in rows], np.float32)
    with np.errstate(invalid="ignore"):
        columns["price_ratio"] = np.abs(np.log(products.price[left]) - np.log(products.price[right]))
    return {name: columns.get(name, unknown) for name in PAIR_FEATURES}


def _compare_weights(prefix: str, weights: sp.csr_matrix, left: Int64, right: Int64) -> dict[str, NDArray]:
    """Return how much of the weight of two texts is shared, and how rare their rarest words are."""
    a, b = weights[left], weights[right]
    shared = a.minimum(b)
    total = _sum_rows(shared)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.stack([total / _sum_rows(a), total / _sum_rows(b)])
    alone = np.stack([_max_rows(a - shared), _max_rows(b - shared)])
    return {
        f"{prefix}_shared_low": shares.min(axis=0),
        f"{prefix}_shared_high": shares.max(axis=0),
        f"{prefix}_rarest_shared": _max_rows(shared),
        f"{prefix}_rarest_alone_low": alone.min(axis=0),
        f"{prefix}_rarest_alone_high": alone.max(axis=0),
    }


def _compare_words(products: PreparedProducts, a: int, b: int) -> dict[str, float]:
    """Return the features of one pair that are not sums over words."""
    found = _compute_found_share(products, a, b), _compute_found_share(products, b, a)
    models = sorted((len(products.models[a]), len(products.models[b])))
    words = sorted((len(products.words[a]), len(products.words[b])))
    numbers = products.numbers[a] | products.numbers[b]
    nan = float("nan")
    both_brands = bool(products.brand[a] and products.brand[b])
    row = {
        "title_in_text_low": float(np.min(found)),
        "title_in_text_high": float(np.max(found)),
        "model_similarity": compare_model_numbers(products.models[a], products.models[b]),
        "model_similarity_text": _compare_text_models(products, a, b),
        "models_low": models[0],
        "models_high": models[1],
        "numbers_shared": len(products.numbers[a] & products.numbers[b]) / len(numbers) if numbers else nan,
        "first_word_equal": float(products.words[a][:1] == products.words[b][:1]),
        "words_low": words[0],
        "words_high": words[1],
        "brand_equal": float(products.brand[a] == products.brand[b]) if both_brands else nan,
        "brand_in_title": _find_brand(products, a, b),
        "category_shared": _compute_shared_levels(products.category[a], products.category[b]),
    }
    for name in MEASURES:
        x, y = products.measures[a].get(name), products.measures[b].get(name)
        row[f"{name}_agrees"] = nan if x is None or y is None else float(bool(x & y))
    return row


def _compute_found_share(products: PreparedProducts, a: int, b: int) -> float:
    """Return the weight share of the words of title `a` that occur in the joined text of `b`; NaN without words."""
    words = products.word_weights[a]
    total = sum(words.values())
    joined = products.joined[b]
    return sum(weight for word, weight in words.items() if word in joined) / total if total else float("nan")


def _compare_text_models(products: PreparedProducts, a: int, b: int) -> float:
    """Return the larger similarity of one title's model numbers with those of the other's whole text."""
    pairs = ((products.models[a], products.text_models[b]), (products.models[b], products.text_models[a]))
    values = [value for value in (compare_model_numbers(x, y) for x, y in pairs) if value == value]
    return max(values, default=float("nan"))


def _find_brand(products: PreparedProducts, a: int, b: int) -> float:
    """Return 1 if a stated brand stands in the other's text, else 0; NaN if no brand is stated."""
    stated = [(products.brand[x], y) for x, y in ((a, b), (b, a)) if products.brand[x]]
    return float(any(brand in products.joined[other] for brand, other in stated)) if stated else float("nan")


def _compute_shared_levels(left: list[str], right: list[str]) -> float:
    """Return the number of first levels that are equal, as a share of the longer path; NaN if one is unknown."""
    if not left or not right:
        return float("nan")
    equal = 0
    while equal < min(len(left), len(right)) and left[equal] == right[equal]:
        equal += 1
    return equal / max(len(left), len(right))


def _sum_rows(rows: sp.csr_matrix) -> NDArray:
    return np.asarray(rows.sum(axis=1)).ravel()


def _max_rows(rows: sp.csr_matrix) -> NDArray:
    return rows.max(axis=1).toarray().ravel()
