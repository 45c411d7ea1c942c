"""Groups that say nothing are left out of the rankers with all features, and cost them nothing."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from consumers.ranking import report, screening
from consumers.ranking.bootstrap import BootstrapWeights
from consumers.ranking.metrics import draw_counts
from consumers.ranking.notes import describe_screening
from consumers.ranking.result import LiftResult
from tests.consumers.ranking.logs import measure_small_lift, small_log

ROWS = 900


def make_weights(generator: np.random.Generator, clicked: np.ndarray) -> BootstrapWeights:
    user, product = generator.integers(0, 60, ROWS), generator.integers(0, 80, ROWS)
    return BootstrapWeights(clicked, user, draw_counts(60, 100, 1), product, draw_counts(80, 100, 2))


def auc(scores: np.ndarray, clicked: np.ndarray, weight: np.ndarray) -> float:
    """The weighted share of pairs in the right order, by brute force."""
    yes, no = clicked == 1, clicked == 0
    pairs = weight[yes][:, None] * weight[no]
    above = (scores[yes][:, None] > scores[no]) + 0.5 * (scores[yes][:, None] == scores[no])
    return float((pairs * above).sum() / pairs.sum())


def test_a_group_is_taken_if_its_lift_exceeds_its_standard_error_by_brute_force() -> None:
    generator = np.random.default_rng(0)
    clicked = (generator.random(ROWS) < 0.3).astype(np.int8)
    base = generator.random(ROWS) + 0.3 * clicked
    groups = {
        str(strength): base + generator.normal(size=ROWS) * 0.1 + strength * clicked
        for strength in (-0.02, 0.0, 0.005, 0.01, 0.02, 0.1)
    }
    weights = make_weights(generator, clicked)
    row_weights = weights.users[:, weights.user] * weights.products[:, weights.product]
    before = np.array([auc(base, clicked, weight) for weight in row_weights])
    expected = []
    for name, scores in groups.items():
        lift = np.array([auc(scores, clicked, weight) for weight in row_weights]) - before
        if lift[0] > lift[1:].std(ddof=1):
            expected.append(name)
    assert 0 < len(expected) < len(groups)
    assert list(screening.screen_groups(groups, base, weights)) == expected
    assert list(screening.screen_groups(groups, base, weights, -np.inf)) == list(groups)


def test_a_group_that_the_ranker_never_used_is_left_out() -> None:
    generator = np.random.default_rng(1)
    clicked = (generator.random(ROWS) < 0.3).astype(np.int8)
    base = generator.random(ROWS)
    assert screening.screen_groups({"unused": base}, base, make_weights(generator, clicked)) == ()


@pytest.fixture(scope="module")
def noise() -> LiftResult:
    """A log whose clicks no feature explains."""
    data = small_log(rows=8_000, users=60, days=24)
    clicked = pa.array((np.random.default_rng(0).random(8_000) < 0.3).astype(np.int8))
    index = data.impressions.column_names.index("clicked")
    unexplained = replace(data, impressions=data.impressions.set_column(index, "clicked", clicked))
    return measure_small_lift(unexplained, days=6, seeds=2, permutations=3, replicates=60)


def test_noise_costs_neither_all_features_nor_the_placebo_anything(noise: LiftResult) -> None:
    for name in ("all features", "placebo"):
        comparison = noise.find(name)
        assert comparison is not None
        assert comparison.interval[0] <= 0 <= comparison.interval[1]


def test_the_report_names_the_groups_that_were_taken(noise: LiftResult) -> None:
    figures = json.loads(report.to_json(noise))
    assert figures["screening"]["taken"] == list(noise.scores.taken)
    assert set(noise.scores.taken) == {noise.scores.group_of[name] for name in noise.scores.gain} - {"tabular"}
    sentence = describe_screening(noise)
    assert f"{sum(figures['screening']['permuted_taken'].values())} of the placebo's 18 permuted groups" in sentence
    for name in noise.verdicts:
        assert name in sentence


def test_a_log_that_no_group_explains_ends_in_not_proven(noise: LiftResult) -> None:
    nothing = replace(noise, scores=replace(noise.scores, taken=()))
    assert report.format_headline(nothing).startswith("Not proven: no group of features passed the screening")
