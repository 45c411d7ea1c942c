"""Metrics of tags on examples computed by hand, and compared with scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from consumers.tagging import metrics
from consumers.tagging.metrics import TagPredictions

ONCE = np.ones((1, 4), dtype=np.int64)


def predict(probabilities: list[list[float]], truth: list[int], group: list[int] | None = None) -> TagPredictions:
    return TagPredictions(np.array(probabilities), np.array(truth), np.array(group or range(len(truth))))


FOUR = predict([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], [0, 1, 1, 0])
"""Right, wrong, right, right."""


def test_accuracy_uses_the_most_probable_label() -> None:
    assert metrics.compute_accuracy(FOUR, ONCE).tolist() == [0.75]


def test_macro_f1_is_the_mean_over_labels() -> None:
    # label 0: two true positives, one false positive; label 1: one true positive, one false negative
    assert metrics.compute_macro_f1(FOUR, ONCE)[0] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_brier_score_sums_the_squared_errors_of_all_labels() -> None:
    assert metrics.compute_brier_score(FOUR, ONCE)[0] == pytest.approx((2 * 0.01 + 2 * 0.64 + 2 * 0.09 + 2 * 0.16) / 4)


def test_calibration_error_is_the_gap_of_each_bin_weighted_by_its_products() -> None:
    # Fifteenths: 0.9 in bin 14, 0.8 in bin 12, 0.7 in bin 11, 0.6 on the upper bound of bin 9: one product each.
    assert metrics.compute_calibration_error(FOUR, ONCE)[0] == pytest.approx((0.1 + 0.8 + 0.3 + 0.4) / 4)
    together = predict([[0.61, 0.39], [0.62, 0.38], [0.63, 0.37], [0.64, 0.36]], [0, 0, 0, 1])
    assert metrics.compute_calibration_error(together, ONCE)[0] == pytest.approx(abs(0.75 - 0.625))


def test_a_higher_threshold_lowers_coverage_and_raises_accuracy() -> None:
    assert metrics.compute_coverage(FOUR, ONCE, 0.7).tolist() == [0.75]
    assert metrics.compute_selective_accuracy(FOUR, ONCE, 0.7)[0] == pytest.approx(2 / 3)
    assert metrics.compute_coverage(FOUR, ONCE, 0.9).tolist() == [0.25]
    assert metrics.compute_selective_accuracy(FOUR, ONCE, 0.9).tolist() == [1.0]


def test_a_metric_of_no_products_is_nan() -> None:
    assert metrics.compute_coverage(FOUR, ONCE, 0.95).tolist() == [0.0]
    assert np.isnan(metrics.compute_selective_accuracy(FOUR, ONCE, 0.95)).all()
    no_products = np.zeros((1, 4), dtype=np.int64)
    for metric in (
        metrics.compute_accuracy,
        metrics.compute_macro_f1,
        metrics.compute_brier_score,
        metrics.compute_calibration_error,
    ):
        assert np.isnan(metric(FOUR, no_products)).all()


def test_a_label_that_the_classifier_cannot_predict_counts_as_an_error_in_every_metric() -> None:
    unpredictable = predict([[0.9, 0.1], [0.2, 0.8]], [0, -1])
    weights = np.ones((1, 2), dtype=np.int64)
    assert metrics.compute_accuracy(unpredictable, weights).tolist() == [0.5]
    assert metrics.compute_macro_f1(unpredictable, weights)[0] == pytest.approx((1 + 0 + 0) / 3)
    assert metrics.compute_brier_score(unpredictable, weights)[0] == pytest.approx((2 * 0.01 + 0.04 + 0.64 + 1) / 2)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_weights_are_equivalent_to_copies_of_products_and_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    products, labels, groups = rng.integers(1, 30), rng.integers(2, 5), rng.integers(1, 8)
    one = TagPredictions(
        rng.dirichlet(np.ones(labels), size=products),
        rng.integers(0, labels, size=products),
        rng.integers(0, groups, size=products),
    )
    weights = metrics.draw_group_weights(groups, 3, seed)
    for metric in (
        metrics.compute_accuracy,
        metrics.compute_macro_f1,
        metrics.compute_brier_score,
        metrics.compute_calibration_error,
    ):
        values = metric(one, weights)
        for row, weight in enumerate(weights):
            drawn = np.repeat(np.arange(products), weight[one.group])
            copies = TagPredictions(one.probabilities[drawn], one.truth[drawn], np.zeros(len(drawn), dtype=np.int64))
            expected = metric(copies, np.ones((1, 1), dtype=np.int64))[0]
            assert values[row] == pytest.approx(expected, nan_ok=True)
            if len(drawn) and metric is metrics.compute_accuracy:
                assert expected == pytest.approx(accuracy_score(copies.truth, copies.label))
            if len(drawn) and metric is metrics.compute_macro_f1:
                assert expected == pytest.approx(f1_score(copies.truth, copies.label, average="macro"))


def test_calibrated_probabilities_have_the_calibration_error_of_chance() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size=600)
    weights = np.ones((1, 600), dtype=np.int64)
    truth = (probabilities.cumsum(axis=1) < rng.random((600, 1))).sum(axis=1)
    calibrated = TagPredictions(probabilities, truth, np.arange(600))
    floor = metrics.compute_chance_calibration_error(calibrated, 200, seed=0)
    assert metrics.compute_calibration_error(calibrated, weights)[0] == pytest.approx(floor, rel=0.4)
    sharper = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    overconfident = TagPredictions(sharper, truth, np.arange(600))
    assert metrics.compute_calibration_error(overconfident, weights)[0] > 4 * metrics.compute_chance_calibration_error(
        overconfident, 200, seed=0
    )
