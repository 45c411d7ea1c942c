import json

import numpy as np
import pytest

from consumers.ranking import lightgbm_ranker, report, splits
from consumers.ranking.run import LiftResult
from feature_repo.errors import VitrineError
from tests.consumers.ranking.logs import DAY, START, measure_small_lift, small_log, truncate

GROUPS = ("tags", "codes", "neighbours", "affinity", "vectors", "missing")


@pytest.fixture(scope="module")
def run() -> LiftResult:
    return measure_small_lift(
        small_log(rows=12_000, users=60, days=24), days=6, seeds=2, permutations=2, replicates=100
    )


def test_features_lift_and_their_placebo_does_not(run: LiftResult) -> None:
    real, placebo = run.find("all features"), run.find("placebo")
    assert real is not None
    assert placebo is not None
    assert real.ci95[0] > 0.02
    assert placebo.lift < 0.2 * real.lift


def test_every_comparison_counts_the_rows_of_its_days(run: LiftResult) -> None:
    whole = [c for c in run.comparisons if c.slice == "all"]
    assert {(c.days, c.rows) for c in whole} == {(days, run.rows[days]) for days in ("test", "validation")}
    assert {c.metric for c in whole} == {"auc", "gauc", "log_loss", "calibration"}
    for c in run.comparisons:
        assert c.lift == pytest.approx(c.with_features - c.base, nan_ok=True)


def test_every_group_is_added_removed_and_compared_with_its_placebo(run: LiftResult) -> None:
    for group in GROUPS:
        for days in ("test", "validation"):
            for name in (group, f"{group}, taken away", f"{group} over placebo"):
                assert run.find(name, days=days) is not None
    assert run.verdicts.keys() == set(GROUPS)


def test_a_group_that_drives_clicks_is_kept_and_another_is_not(run: LiftResult) -> None:
    assert run.verdicts["affinity"].verdict == "keep"
    assert run.verdicts["missing"].verdict != "keep"


def test_two_way_intervals_are_not_much_narrower(run: LiftResult) -> None:
    for c in run.comparisons:
        if c.name == "all features" and c.metric == "auc" and c.slice == "all":
            assert c.ci95_two_way[1] - c.ci95_two_way[0] > 0.8 * (c.ci95[1] - c.ci95[0])


def test_the_last_point_of_the_learning_curve_is_the_main_comparison(run: LiftResult) -> None:
    rows = [point.rows for point in run.curve]
    assert rows == sorted(set(rows))
    assert rows[-1] == run.rows["train"]
    lift = run.find("all features")
    assert lift is not None
    assert run.curve[-1].lift == pytest.approx(lift.lift)


def test_the_json_has_the_documented_keys_and_no_nan(run: LiftResult) -> None:
    figures = json.loads(report.to_json(run), parse_constant=pytest.fail)
    assert {"train", "test", "unmatched"} <= figures["rows"].keys()
    documented = {"name", "model", "slice", "metric", "base", "with", "lift", "ci95", "rows"}
    names = set()
    for comparison in figures["comparisons"]:
        assert documented <= comparison.keys()
        assert len(comparison["ci95"]) == 2
        names.add(comparison["name"])
    assert {"all features", "placebo", "tags", "affinity", "vectors"} <= names
    assert {"verdicts", "learning_curve", "importance", "delong", "costs", "rule"} <= figures.keys()
    assert "independent" in figures["delong"]["caveat"]


def test_the_report_has_no_external_assets(run: LiftResult, tmp_path) -> None:
    report.write_report(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert report.format_headline(run).replace("&", "&amp;") in page
    assert "src=" not in page
    assert "<link" not in page


def test_the_same_seed_gives_the_same_scores() -> None:
    data = small_log()
    features = {"day": (data.timestamp_us // DAY).astype(np.float32), "user": data.user.astype(np.int32)}
    early = data.timestamp_us < START + 15 * DAY
    first, again = (lightgbm_ranker.fit_and_score(features, data.clicked, early, ~early, seeds=[3]) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_log_too_short_for_the_split_is_an_error_that_names_the_option() -> None:
    data = small_log(days=20)
    with pytest.raises(VitrineError, match="--test-days"):
        splits.find_test_start(data, test_days=30)
    with pytest.raises(VitrineError, match="--test-days"):
        splits.find_test_start(truncate(data, 1), test_days=None)


def test_by_default_the_last_sixth_of_the_rows_is_the_test() -> None:
    data = small_log()
    start = splits.find_test_start(data, test_days=None)
    assert 0.1 < (data.timestamp_us >= start).mean() < 0.2
