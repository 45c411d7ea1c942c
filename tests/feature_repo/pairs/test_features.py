"""Pair features: symmetric, unknown where a product lacks something, and equal to a plain computation."""

import math

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.pairs.features import PAIR_FEATURES, compute_pair_features, has_veto
from feature_repo.pairs.measures import extract_measures, find_conflicts
from feature_repo.pairs.prepared import PreparedProducts
from feature_repo.pairs.title_statistics import TitleStatistics
from feature_repo.pairs.title_words import compare_model_numbers, find_model_numbers, split_words

TITLES = [
    "Sony Cyber-Shot DSC-W150 camera red",
    "sony dscw150r 8.1 megapixel camera",
    "【小芽糯】奶瓶 240ml 6-12个月",
    "奶瓶 330毫升 小芽糯",
    None,
    "diapers pack of 40",
    "diapers 60 count",
]
PRODUCTS = pa.table(
    {
        "title": TITLES,
        "brand": ["Sony", "SONY", "小芽糯", None, None, "A", "B"],
        "category": ["a>b", "a>c", "x", None, None, "a>b", "a>b"],
        "price": [100.0, 50.0, None, 20.0, 0.0, 5.0, 5.0],
        "image_vector": pa.array([[1.0, 0.0], [0.6, 0.8], None, None, [0.0, 1.0], None, None], pa.list_(pa.float32())),
    }
)


@pytest.fixture(scope="module")
def prepared() -> PreparedProducts:
    return PreparedProducts.prepare(PRODUCTS, TitleStatistics.fit(TITLES))


def feature(prepared: PreparedProducts, left: int, right: int, name: str) -> float:
    row = compute_pair_features(prepared, np.array([left]), np.array([right]))[0]
    return float(row[PAIR_FEATURES.index(name)])


def test_a_pair_and_its_mirror_image_have_the_same_features(prepared: PreparedProducts) -> None:
    left, right = (side.ravel() for side in np.indices((len(TITLES), len(TITLES))))
    there, back = compute_pair_features(prepared, left, right), compute_pair_features(prepared, right, left)
    np.testing.assert_allclose(there, back, rtol=1e-5, atol=1e-6)


def test_what_a_product_lacks_is_unknown_not_different(prepared: PreparedProducts) -> None:
    assert math.isnan(feature(prepared, 0, 2, "image_cosine"))
    assert math.isnan(feature(prepared, 2, 3, "brand_equal"))
    assert math.isnan(feature(prepared, 3, 4, "price_ratio"))  # a price of 0 says nothing
    assert math.isnan(feature(prepared, 0, 1, "fused_cosine"))  # no such column
    assert feature(prepared, 0, 1, "image_cosine") == pytest.approx(0.6)


def test_facts_are_compared_as_they_are_meant(prepared: PreparedProducts) -> None:
    assert feature(prepared, 0, 1, "brand_equal") == 1
    assert feature(prepared, 0, 1, "category_shared") == 0.5
    assert feature(prepared, 0, 1, "price_ratio") == pytest.approx(math.log(2))
    assert feature(prepared, 2, 3, "brand_in_title") == 1


def test_shared_weight_equals_a_plain_sum_over_words(prepared: PreparedProducts) -> None:
    words = [set(split_words(title)) for title in TITLES]
    idf = {word: math.log((1 + len(TITLES)) / (1 + sum(word in one for one in words))) for one in words for word in one}
    weight = [sum(idf[word] for word in one) for one in words]
    shared = sum(idf[word] for word in words[0] & words[1])
    assert feature(prepared, 0, 1, "title_shared_low") == pytest.approx(shared / max(weight[0], weight[1]), rel=1e-5)
    assert feature(prepared, 0, 1, "title_shared_high") == pytest.approx(shared / min(weight[0], weight[1]), rel=1e-5)


def test_words_are_joined_over_hyphens_and_chinese_is_split_into_pairs() -> None:
    assert split_words("DSC-W150/B 奶油风") == ["dscw150b", "奶油", "油风"]
    assert split_words(None) == []


def test_model_numbers_match_by_their_longest_common_run() -> None:
    assert find_model_numbers(split_words("sony DSC-W150 8gb 2009 40000")) == {"dscw150", "40000"}
    assert compare_model_numbers({"dscw150"}, {"dscw150r"}) == 1
    assert compare_model_numbers({"kdl52w4100"}, {"kdl42v4100"}) == pytest.approx(0.4)
    assert compare_model_numbers({"abc123"}, {"xyz789"}) == 0
    assert math.isnan(compare_model_numbers(set(), {"xyz789"}))


@pytest.mark.parametrize(
    ("left", "right", "conflicts"),
    [
        ("diapers pack of 40", "diapers 60 count", ["pack"]),
        ("奶粉3段 800g", "奶粉2段 0.8kg", ["stage"]),
        ("奶瓶 1.5L", "奶瓶 1500ml", []),
        ("奶瓶 240ml", "奶瓶", []),
        ("3-6岁 帽子", "0-12个月 帽子", ["age"]),
        ("1-3岁", "24-36个月", []),
        ("disk 1TB", "disk 500 gb", ["storage"]),
        (None, "disk 500 gb", []),
    ],
)
def test_measures_conflict_only_if_both_sides_state_them_without_a_common_value(
    left: str | None, right: str, conflicts: list[str]
) -> None:
    assert find_conflicts(extract_measures(left), extract_measures(right)) == conflicts
    assert find_conflicts(extract_measures(right), extract_measures(left)) == conflicts


def test_pack_size_and_volume_are_a_veto(prepared: PreparedProducts) -> None:
    features = compute_pair_features(prepared, np.array([5, 2, 0]), np.array([6, 3, 1]))
    assert has_veto(features).tolist() == [True, True, False]
