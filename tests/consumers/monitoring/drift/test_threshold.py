"""Permutation thresholds and the statistics they apply to."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from consumers.monitoring.drift import domain_classifier, measures, neighbour_turnover
from consumers.monitoring.drift.threshold import compute_thresholds, count_permutations, permute_labels
from feature_repo.errors import UsageError

CODES = st.lists(st.tuples(st.booleans(), st.integers(-1, 4)), min_size=2, max_size=30)


@given(rows=st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_permutations_keep_the_number_of_recent_products_in_each_stratum(
    rows: list[tuple[bool, int]], seed: int
) -> None:
    label, stratum = np.array([one for one, _ in rows]), np.array([one for _, one in rows])
    result = permute_labels(label, stratum, 20, seed)
    assert (result[0] == label).all()
    for one in np.unique(stratum):
        assert (result[:, stratum == one].sum(axis=1) == label[stratum == one].sum()).all()


def test_every_permutation_within_a_stratum_is_equally_likely() -> None:
    result = permute_labels(np.array([True, False, False, True]), np.array([0, 0, 0, 1]), 6000, 0)[1:]
    assert result[:, 3].all()
    assert result[:, :3].mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.03)


def measured(now: NDArray[np.bool_], vectors: NDArray, codes: NDArray[np.int64], scores: NDArray) -> NDArray:
    """Return several dependent statistics, as in a check."""
    return np.column_stack(
        [
            measures.centroid_shift(vectors, now),
            measures.mean_shift(scores, now),
            measures.psi(codes, now),
            measures.entropy_shift(codes, now),
            measures.largest_share_shift(codes, now),
            measures.psi(measures.assign_deciles(scores), now),
            measures.mean_shift((scores > 2.2) * 1.0, now),
        ]
    )


@pytest.mark.parametrize("of_now", [0.5, 0.1])
def test_the_false_alarm_rate_is_the_requested_one(of_now: float) -> None:
    checks_per_alarm, checks = 10, 400
    alarms = 0
    for seed in range(checks):
        generator = np.random.default_rng(seed)
        stratum = generator.integers(0, 3, 150)
        label = generator.random(150) < np.where(stratum == 0, 0.8 * of_now, of_now)  # another mix without drift
        vectors = generator.standard_normal((150, 6)) + 3 * stratum[:, None]
        codes, scores = generator.integers(0, 5, 150) + stratum, generator.standard_normal(150) + stratum
        statistics = measured(
            permute_labels(label, stratum, count_permutations(checks_per_alarm), seed), vectors, codes, scores
        )
        result = compute_thresholds(statistics, checks_per_alarm)
        alarms += bool((statistics[0] > result.threshold).any())
    deviation = math.sqrt(checks * 0.1 * 0.9)
    assert abs(alarms - checks / checks_per_alarm) < 3 * deviation


def test_without_strata_a_change_of_mix_would_be_an_alarm() -> None:
    generator = np.random.default_rng(0)
    stratum = np.repeat([0, 1], 200)
    label = generator.random(400) < np.where(stratum == 0, 0.2, 0.6)
    vectors = generator.standard_normal((400, 6)) + 3 * stratum[:, None]
    for strata, alarm in ((stratum, False), (np.zeros(400, np.int64), True)):
        statistics = measures.centroid_shift(vectors, permute_labels(label, strata, 199, 0))[:, None]
        assert (statistics[0] > compute_thresholds(statistics, 100).threshold).any() == alarm


def test_a_constant_statistic_is_never_an_alarm() -> None:
    result = compute_thresholds(np.zeros((200, 2)), 100)
    assert (result.threshold == np.inf).all()
    assert result.p_value == 1


def test_too_few_permutations_are_an_error() -> None:
    with pytest.raises(
        UsageError, match="99 permutations are too few for one false alarm in 365 checks; use 729 or more"
    ):
        compute_thresholds(np.zeros((100, 1)), 365)


@given(CODES)
def test_psi_and_entropy_agree_with_loops(rows: list[tuple[bool, int]]) -> None:
    now, codes = np.array([one for one, _ in rows]), np.array([one for _, one in rows])
    used = sorted({code for code in codes if code >= 0})
    counts = [[sum((codes == code) & side) for code in used] for side in (now, ~now)]
    smooth = [[count + 0.5 for count in side] for side in counts]
    shares = [[count / sum(side) for count in side] for side in smooth]
    expected = sum((p - q) * math.log(p / q) for p, q in zip(*shares, strict=True))
    assert measures.psi(codes, now[None])[0] == pytest.approx(expected)
    entropies = [-sum(c / sum(side) * math.log(c / sum(side)) for c in side if c) for side in counts]
    assert measures.entropy_shift(codes, now[None])[0] == pytest.approx(abs(entropies[0] - entropies[1]))


@given(st.lists(st.tuples(st.booleans(), st.floats(-9, 9) | st.just(math.nan)), min_size=1, max_size=20))
def test_means_ignore_missing_values(rows: list[tuple[bool, float]]) -> None:
    sides = [[value for now, value in rows if now == side and value == value] for side in (True, False)]
    means = [sum(side) / len(side) for side in sides] if all(sides) else [0.0, 0.0]
    result = measures.mean_shift(np.array([value for _, value in rows]), np.array([[now for now, _ in rows]]))
    assert result[0] == pytest.approx(abs(means[0] - means[1]), abs=1e-9)


def test_deciles_have_equal_sizes_and_missing_scores_their_own_bin() -> None:
    scores = np.append(np.random.default_rng(0).random(1000), [np.nan] * 7)
    counts = np.bincount(measures.assign_deciles(scores))
    assert counts.tolist() == [100] * 10 + [7]


def test_the_classifiers_have_the_weights_that_scikit_learn_fits() -> None:
    generator = np.random.default_rng(0)
    rows, labels = generator.standard_normal((120, 5)) * [3, 1, 1, 0.1, 0], generator.random((6, 120)) < 0.3
    labels[1] = rows[:, 0] > 0  # two sides that a plane separates
    labels[2] = False
    result = domain_classifier.fit(rows, labels)
    for weights, label in zip(result, labels, strict=True):
        if not label.any():
            assert (weights == 0).all()
            continue
        wanted = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-9, max_iter=5000).fit(rows, label)
        assert weights == pytest.approx(np.append(wanted.coef_[0], wanted.intercept_), abs=2e-4)


def test_the_rank_formula_equals_scikit_learns_auc() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.random((4, 60)), generator.random((4, 60)) < 0.4
    wanted = [roc_auc_score(label, score) for label, score in zip(labels, scores, strict=True)]
    assert domain_classifier._rank_auc(scores, labels) == pytest.approx(wanted)


def test_the_auc_is_high_for_separable_sets_and_one_half_for_equal_ones() -> None:
    generator = np.random.default_rng(0)
    label = (np.arange(400) < 150)[None]
    noise = generator.standard_normal((400, 8))
    assert domain_classifier.compute_auc(noise, label, 0)[0] == pytest.approx(0.5, abs=0.1)
    assert domain_classifier.compute_auc(noise + 2 * label[0][:, None], label, 0)[0] > 0.95
    equal = np.ones((400, 8))
    assert domain_classifier.compute_auc(equal, label, 0)[0] == pytest.approx(0.5, abs=0.1), (
        "equal vectors tell nothing"
    )


def test_turnover_is_the_share_of_neighbours_lost() -> None:
    generator = np.random.default_rng(0)
    pool = generator.standard_normal((80, 16)).astype(np.float32)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    own = np.arange(80)
    assert neighbour_turnover.compute_turnover(pool, pool, pool, own).tolist() == [0.0] * 80
    other = generator.standard_normal((80, 16)).astype(np.float32)
    lost = neighbour_turnover.compute_turnover(other / np.linalg.norm(other, axis=1, keepdims=True), pool, pool, own)
    expected = [
        1 - len(set(_nearest(old, pool, i)) & set(_nearest(new, pool, i))) / neighbour_turnover.NEIGHBOURS
        for i, (old, new) in enumerate(zip(other, pool, strict=True))
    ]
    assert lost == pytest.approx(expected)
    assert np.isnan(neighbour_turnover.compute_turnover(pool[:5], pool[:5], pool[:5], own[:5])).all(), (
        "of ten products all are neighbours"
    )


def _nearest(vector: NDArray, pool: NDArray, own: int) -> list[int]:
    order = [i for i in np.argsort(-(pool @ vector)).tolist() if i != own]
    return order[: neighbour_turnover.NEIGHBOURS]
