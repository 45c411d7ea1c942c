import json

import numpy as np
import pytest

from consumers.ranking import lift, rankers, report
from consumers.ranking.run import Run
from consumers.ranking.slices import slices
from feature_repo.errors import VitrineError
from tests.ranking.world import DAY, START, cut, small_log


@pytest.fixture(scope="module")
def run() -> Run:
    data = small_log(rows=12_000, users=60, days=24)
    start = lift.split_time(data, test_days=6)
    scores = lift.score_all(data, start, seeds=[0, 1], truth=None, progress=lambda *_: None)
    comparisons = lift.compare(data, scores, slices(data, scores.test), replicates=100, seed=0)
    test = scores.test
    return Run(
        comparisons, scores, data.clicked[test], data.user[test], np.datetime64(start, "us"),
        {"train": int((~test).sum()), "test": int(test.sum()), "unmatched": 0}, 100, "small@0",
    )  # fmt: skip


def test_features_that_users_click_by_lift_and_the_same_features_of_other_products_do_not(run: Run) -> None:
    real, placebo = run.find("all features"), run.find("placebo")
    assert real is not None
    assert placebo is not None
    assert real.ci95[0] > 0.02
    assert placebo.lift < 0.2 * real.lift


def test_every_comparison_is_on_the_same_rows_and_says_how_many(run: Run) -> None:
    whole = [c for c in run.comparisons if c.slice == "all"]
    assert {c.rows for c in whole} == {run.rows["test"]}
    assert {c.metric for c in whole} == {"auc", "gauc", "log_loss", "calibration"}
    for c in run.comparisons:
        assert c.lift == pytest.approx(c.with_features - c.base, nan_ok=True)


def test_the_json_is_of_the_documented_shape_and_holds_no_nan(run: Run) -> None:
    figures = json.loads(report.as_json(run), parse_constant=pytest.fail)
    assert {"train", "test", "unmatched"} <= figures["rows"].keys()
    first = figures["comparisons"][0]
    assert first.keys() == {"name", "model", "slice", "metric", "base", "with", "lift", "ci95", "rows"}
    assert len(first["ci95"]) == 2


def test_the_report_is_one_file_that_needs_no_other(run: Run, tmp_path) -> None:
    report.write_report(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert report.verdict(run).replace("&", "&amp;") in page
    assert "src=" not in page
    assert "<link" not in page


def test_the_same_seed_gives_the_same_scores() -> None:
    data = small_log()
    features = {"day": (data.time // DAY).astype(np.float32), "user": data.user.astype(np.int32)}
    early = data.time < START + 15 * DAY
    first, again = (rankers.fit_and_score(features, data.clicked, early, ~early, seeds=[3]) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_log_too_short_for_the_split_is_refused_with_what_to_do() -> None:
    data = small_log(days=20)
    with pytest.raises(VitrineError, match="--test-days"):
        lift.split_time(data, test_days=30)
    with pytest.raises(VitrineError, match="--test-days"):
        lift.split_time(cut(data, 1), test_days=None)


def test_without_a_number_of_days_the_last_sixth_of_the_rows_is_the_test() -> None:
    data = small_log()
    start = lift.split_time(data, test_days=None)
    assert 0.1 < (data.time >= start).mean() < 0.2
