import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from consumers.ranking import metrics


@st.composite
def scored_rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rows, users = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    scores = np.array(draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows))) / 10  # many ties
    clicked = np.array(draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))
    user = np.array(draw(st.lists(st.integers(0, users - 1), min_size=rows, max_size=rows)))
    weights = np.array(draw(st.lists(st.integers(0, 3), min_size=3 * users, max_size=3 * users))).reshape(3, users)
    return scores, clicked, user, weights


@given(scored_rows())
def test_weighted_auc_equals_auc_of_repeated_rows(case: tuple) -> None:
    scores, clicked, user, weights = case
    for weight, value in zip(weights, metrics.auc(scores, clicked, user, weights), strict=True):
        repeated = np.repeat(np.arange(len(scores)), weight[user])
        if len(set(clicked[repeated])) < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(reference.roc_auc_score(clicked[repeated], scores[repeated]))


@given(scored_rows(), st.data())
def test_two_way_auc_equals_auc_of_rows_repeated_by_user_and_product(case: tuple, data: st.DataObject) -> None:
    scores, clicked, user, weights = case
    product = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(user), max_size=len(user))))
    of_products = np.array(data.draw(st.lists(st.integers(0, 3), min_size=12, max_size=12))).reshape(3, 4)
    result = metrics.auc_two_way(scores, clicked, user, weights, product, of_products)
    for weight, other, value in zip(weights, of_products, result, strict=True):
        repeated = np.repeat(np.arange(len(scores)), weight[user] * other[product])
        if len(set(clicked[repeated])) < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(reference.roc_auc_score(clicked[repeated], scores[repeated]))


@given(scored_rows())
def test_gauc_weights_each_user_by_rows_and_draws(case: tuple) -> None:
    scores, clicked, user, weights = case
    for weight, value in zip(weights, metrics.gauc(scores, clicked, user, weights), strict=True):
        of_users, rows = [], []
        for one in np.unique(user):
            mine = user == one
            if len(set(clicked[mine])) == 2:
                of_users.append(reference.roc_auc_score(clicked[mine], scores[mine]))
                rows.append(mine.sum() * weight[one])
        assert value == pytest.approx(np.average(of_users, weights=rows)) if sum(rows) else np.isnan(value)


@given(scored_rows())
def test_log_loss_and_calibration_equal_those_of_repeated_rows(case: tuple) -> None:
    scores, clicked, user, weights = case
    scores = scores * 0.9 + 0.05
    losses = metrics.log_loss(scores, clicked, user, weights)
    ratios = metrics.calibration(scores, clicked, user, weights)
    for weight, loss, ratio in zip(weights, losses, ratios, strict=True):
        repeated = np.repeat(np.arange(len(scores)), weight[user])
        if len(repeated) == 0:
            assert np.isnan(loss)
            continue
        assert loss == pytest.approx(reference.log_loss(clicked[repeated], scores[repeated], labels=[0, 1]))
        clicks = clicked[repeated].sum()
        assert ratio == pytest.approx(scores[repeated].sum() / clicks) if clicks else np.isnan(ratio)


def test_replicate_0_has_each_user_once_and_the_others_as_many_in_total() -> None:
    weights = metrics.draw_counts(50, 200, seed=1)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 50).all()
    assert len(np.unique(weights, axis=0)) == 201


def test_gauc_coverage_gives_shares_of_users_and_rows() -> None:
    clicked, user = np.array([1, 0, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 2, 2])
    assert metrics.gauc_coverage(clicked, user) == (1 / 3, 1 / 3)
