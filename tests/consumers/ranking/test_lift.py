import io
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape
from rich.console import Console
from sklearn.metrics import roc_auc_score

from consumers.ranking import feature_meaning, lightgbm_ranker, plots, report, splits
from consumers.ranking.lift import Comparison
from consumers.ranking.plan import BASE
from consumers.ranking.result import AucStep, LiftResult
from consumers.ranking.slices import slice_test_rows
from feature_repo.errors import VitrineError
from tests.consumers.ranking.logs import DAY, START, measure_small_lift, small_log, truncate

GROUPS = ("tags", "codes", "neighbours", "affinity", "vectors", "missing")


@pytest.fixture(scope="module")
def run() -> LiftResult:
    return measure_small_lift(
        small_log(rows=12_000, users=60, days=24), days=6, seeds=2, permutations=2, replicates=100
    )


@pytest.fixture(scope="module")
def page(run: LiftResult, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report as HTML."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    report.write_report(run, file)
    return file.read_text()


def test_features_lift_and_their_placebo_does_not(run: LiftResult) -> None:
    real, placebo = run.find("all features"), run.find("placebo")
    assert real is not None
    assert placebo is not None
    assert real.ci95[0] > 0.02
    assert placebo.lift < 0.2 * real.lift


def test_the_lift_of_a_group_on_a_slice_is_the_difference_in_auc_on_its_rows(run: LiftResult) -> None:
    data = small_log(rows=12_000, users=60, days=24)
    slices = slice_test_rows(data, data.timestamp_us >= run.split.astype(np.int64))
    assert {c.slice for c in run.group_slices} == set(slices)
    assert [c.name for c in run.group_slices[: len(GROUPS)]] == [name for name in run.scores.features if name != BASE]
    on_test = {name: run.scores.ablation[name][:, -len(run.clicked) :] for name in run.scores.features}
    for c in run.group_slices:
        rows = slices[c.slice]
        base, with_group = (
            np.mean([roc_auc_score(run.clicked[rows], scores[rows]) for scores in on_test[name]])
            for name in (BASE, c.name)
        )
        assert (c.base, c.with_features) == (pytest.approx(base), pytest.approx(with_group))
        assert c.lift == pytest.approx(with_group - base)
        assert c.rows == rows.sum()
        if c.rows > 500:  # a small slice has draws of one class, and so no interval
            assert c.interval[0] <= c.lift <= c.interval[1]
    assert len(json.loads(report.to_json(run))["group_slices"]) == len(run.group_slices)


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


def test_the_report_has_no_external_assets(run: LiftResult, page: str) -> None:
    assert "<svg" in page
    assert report.format_headline(run).replace("&", "&amp;") in page
    assert "src=" not in page
    assert "<link" not in page


def test_the_report_shows_gauc_beside_auc_with_one_interval_for_each(run: LiftResult, page: str) -> None:
    tiles = page[page.index('class="cards"') : page.index("<h2>")]
    lift, gauc = run.find("all features"), run.find("all features", metric="gauc")
    assert f"GAUC {gauc.lift:+.4f}" in tiles
    assert page.count("difference in GAUC, 95%") == 2
    assert f"GAUC {run.curve[-1].gauc_lift:+.4f}" in page
    assert run.curve[-1].gauc_lift == pytest.approx(gauc.lift)
    two_way, one_way = (f"[{low:+.4f}, {high:+.4f}]" for low, high in (lift.ci95_two_way, lift.ci95))
    assert two_way != one_way
    assert tiles.count(two_way) == 1
    output = io.StringIO()
    Console(file=output, width=200).print(report.to_table(run))
    for text in (page, output.getvalue()):
        assert two_way in text
        assert one_way not in text


def test_the_headline_and_the_row_under_it_have_the_same_interval(run: LiftResult) -> None:
    output = io.StringIO()
    Console(file=output, width=200).print(report.to_table(run))
    headline, *rows = output.getvalue().splitlines()
    row = next(row for row in rows if "all features " in row)
    interval = headline[headline.index("[") :].strip()
    assert interval in row
    assert run.find("all features").interval == run.find("all features").ci95_two_way


def test_the_report_the_json_and_the_terminal_state_the_power_of_every_verdict(run: LiftResult, page: str) -> None:
    page = " ".join(page.split())
    output = io.StringIO()
    Console(file=output, width=200).print(report.to_table(run))
    figures = json.loads(report.to_json(run))
    assert figures["power"] == {"effect": 0.01, "target": 0.8}
    for group, found in run.verdicts.items():
        assert figures["verdicts"][group]["power"] == found.power
        assert 0 < found.power < 1
        assert f"for {group} an effect of +0.01 would have been seen in {found.power:.0%} of cases" in page
        row = next(row for row in output.getvalue().splitlines() if f" {group} " in row)
        assert f" {found.power:.0%} " in row
    assert f"{run.rows['validation']:,} impressions, {run.rows['validation_clicks']:,} clicks" in page
    assert splits.VALIDATION_RULE in page
    assert figures["validation_rule"] == splits.VALIDATION_RULE


def test_the_report_explains_every_group_and_feature_and_names_context_columns(run: LiftResult, page: str) -> None:
    for group in GROUPS:
        assert escape(feature_meaning.GROUPS[group]) in page
    for feature in run.scores.group_of:
        meaning = feature_meaning.describe_feature(feature, run.context)
        assert meaning, feature
        assert str(escape(meaning)) in page
    assert "context_0" not in page
    assert "<td>child_age_months</td>" in page
    assert json.loads(report.to_json(run))["meaning"]["context_0"] == "column `child_age_months` of the log"


def test_the_report_says_when_from_what_and_by_which_command_it_was_made(run: LiftResult, tmp_path) -> None:
    made = report.Provenance(
        datetime(2026, 3, 2, 9, 30, tzinfo=UTC),
        "consume lift --impressions '<b>.parquet'",
        "0.9.1",
        Path("/data/<b>.parquet"),
        Path("/srv/shop/feature_store.yaml"),
    )
    report.write_report(run, tmp_path / "report.html", [], made)
    page = (tmp_path / "report.html").read_text()
    assert "2026-03-02 09:30 UTC by Vitrine 0.9.1" in page
    assert "/data/&lt;b&gt;.parquet" in page
    assert "<b>.parquet" not in page
    assert "consume lift --impressions &#39;&lt;b&gt;.parquet&#39;" in page
    assert "another processor" in page
    assert json.loads(report.to_json(run, made))["provenance"]["store"] == "/srv/shop/feature_store.yaml"


@pytest.mark.parametrize(
    ("metric", "interval", "effect"),
    [
        ("auc", (0.001, 0.002), "gain"),
        ("auc", (-0.002, -0.001), "loss"),
        ("auc", (-0.001, 0.002), ""),
        ("auc", (np.nan, np.nan), ""),
        ("gauc", (-0.002, -0.001), "loss"),
        ("log_loss", (-0.002, -0.001), "gain"),
        ("log_loss", (0.001, 0.002), "loss"),
        ("calibration", (0.001, 0.002), ""),
    ],
)
def test_only_a_gain_is_green(metric: str, interval: tuple[float, float], effect: str) -> None:
    comparison = Comparison(
        "placebo", "lightgbm", "all", metric, 0.7, 0.7, float(np.mean(interval)), interval, 10, interval
    )
    assert comparison.effect == effect
    if metric == "auc":
        drawn = plots.draw_forest({"placebo": {"auc": comparison}})
        assert (plots.ACCENT in drawn, plots.LOSS in drawn) == (effect == "gain", effect == "loss")
        steps = [AucStep("baseline", 0.7, 0.6), AucStep("all features", 0.8, 0.61)]
        assert (plots.ACCENT in plots.draw_waterfall(steps, effect)) == (effect == "gain")


def test_names_in_plots_are_text_and_neither_html_nor_formulas() -> None:
    drawn = plots.draw_importance([("<script>alert(1)</script>", "tabular", 0.5), ("a$b_$c^$", "tags", 0.4)])
    assert "<script" not in drawn
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in drawn
    assert "a$b_$c^$" in drawn


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
