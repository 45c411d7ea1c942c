import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import roc_auc_score

from consumers.ranking import din_ranker, report
from consumers.ranking.baseline_features import compute_baseline
from consumers.ranking.lift import OVER_PLACEBO
from consumers.ranking.result import LiftResult
from consumers.ranking.training_set import RankingTrainingSet
from feature_repo.errors import VitrineError
from tests.consumers.ranking.logs import measure_small_lift, small_log

DATA = small_log(rows=6000, users=40)
BASE = compute_baseline(DATA)
KINDS = ("lightgbm", "din")
TRAIN, TEST = np.arange(4500), np.arange(4500, 6000)


def scores(data: RankingTrainingSet = DATA, seed: int = 0) -> np.ndarray:
    return din_ranker.fit_and_score(data, BASE, TRAIN, TEST, [seed])[0]


def test_the_same_seed_gives_the_same_scores_with_several_threads() -> None:
    alone = [scores(seed=seed) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: scores(seed=seed), (1, 2)))
    np.testing.assert_array_equal(alone, together)
    assert (alone[0] != alone[1]).any()


def test_din_learns_to_rank_and_is_roughly_calibrated() -> None:
    result = scores()
    assert roc_auc_score(DATA.clicked[TEST], result) > 0.58
    assert result.mean() == pytest.approx(DATA.clicked[TEST].mean(), abs=0.06)


def test_a_click_does_not_change_earlier_scores() -> None:
    clicked = DATA.clicked.copy()
    clicked[5500:] = 1 - clicked[5500:]
    log = DATA.impressions
    other = replace(DATA, impressions=log.set_column(log.column_names.index("clicked"), "clicked", pa.array(clicked)))
    before = DATA.timestamp_us[TEST] <= DATA.timestamp_us[5500]
    np.testing.assert_array_equal(scores()[before], scores(other)[before])
    assert (scores()[~before] != scores(other)[~before]).any()


def test_the_interest_is_the_attention_weighted_sum_of_the_clicks() -> None:
    torch.manual_seed(0)
    network = din_ranker.DeepInterestNetwork(3, 6, 0, 0)
    history = torch.tensor([[4, 2, -1], [-1, -1, -1]])
    candidate = network.product(torch.tensor([1, 5]))
    result = network.interest(candidate, history)
    expected = torch.zeros(din_ranker.WIDTH)
    for product in (4, 2):
        clicked = network.product.weight[product]
        seen = torch.cat([candidate[0], clicked, candidate[0] - clicked, candidate[0] * clicked])
        expected = expected + network.attention(seen) * clicked
    torch.testing.assert_close(result[0], expected)
    assert not result[1].any()


@pytest.fixture(scope="module")
def run() -> LiftResult:
    """With every group taken, so that the placebos of two permutations differ."""
    return measure_small_lift(small_log(), days=5, permutations=2, ranker="both", screening_errors=-np.inf)


def test_both_reports_both_rankers_and_an_unknown_ranker_is_an_error(run: LiftResult) -> None:
    for name in ("all features", "placebo", "all features over placebo"):
        assert {c.model for c in run.comparisons if (c.name, c.slice, c.metric) == (name, "all", "auc")} == set(KINDS)
    alone = measure_small_lift(small_log(), days=5, ranker="din")
    lift = alone.find("all features")
    assert lift is not None
    assert lift.model == "din"
    with pytest.raises(VitrineError, match="no ranker `forest`; there are: lightgbm, din, both"):
        measure_small_lift(small_log(), days=5, ranker="forest")


def test_each_kind_of_ranker_is_compared_with_its_own_placebo(run: LiftResult, tmp_path: Path) -> None:
    for scores in (run.scores.main, run.scores.secondary):
        assert len(scores["placebo"]) == 2
        assert (scores["placebo"][0] != scores["placebo"][1]).any()
    assert run.scores.permuted_taken == dict.fromkeys(run.verdicts, 2)
    result = {c.model: c for c in run.comparisons if c.name == OVER_PLACEBO and (c.slice, c.metric) == ("all", "auc")}
    for kind, scores in zip(KINDS, (run.scores.main, run.scores.secondary), strict=True):
        auc = {
            name: np.mean([roc_auc_score(run.clicked, each) for each in scores[name]])
            for name in ("all features", "placebo")
        }
        assert result[kind].lift == pytest.approx(auc["all features"] - auc["placebo"])
        assert result[kind].against == "placebo"
    report.write_report(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for kind in KINDS:
        assert f"{kind}, over placebo</td><td>{result[kind].base:.4f}" in page
    figures = json.loads(report.to_json(run))["comparisons"]
    assert {each["model"] for each in figures if each["name"] == OVER_PLACEBO} == set(KINDS)
