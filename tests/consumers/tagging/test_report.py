"""`consume tags-report` on a table whose metrics are computed by hand."""

import json
import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from consumers.tagging import metrics, report
from consumers.tagging.metrics import TagPredictions
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.schema import CHILD_GENDERS, TAG_PREDICTIONS, TAG_VARIANTS
from tests.deployments import run_main
from tests.producers.tags import world

RIGHT = {"image and text": 8, "vectors alone": 7, "bag of words": 5, "text tower": 6, "image tower": 4}
"""Correct predictions of each variant among ten products; every probability is 0.75."""


def predictions(right: dict[str, int], *, version: str = "tagger-a", split: str = "test", later: int = 0) -> pa.Table:
    rows = [
        {
            "product_id": world.product_id(number),
            "group": f"design {number // 2}",
            "tag": "child_gender",
            "variant": variant,
            "split": split,
            "truth": "girl",
            "labels": list(CHILD_GENDERS),
            "probabilities": [0.125, 0.75, 0.125] if number < right[variant] else [0.75, 0.125, 0.125],
            "tagger_version": version,
            "created_timestamp": world.NOW + timedelta(days=later),
        }
        for variant in TAG_VARIANTS
        for number in range(10)
    ]
    return pa.Table.from_pylist(rows, schema=TAG_PREDICTIONS)


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    store = world.store(tmp_path)
    delta.append(store.table("tag_predictions"), predictions(RIGHT))
    return store


def test_the_report_has_the_metrics_of_each_variant(store: Settings) -> None:
    (tag,) = report.evaluate_tags(store, replicates=500, seed=0).tags
    assert (tag.tag, tag.products, tag.groups) == ("child_gender", 10, 5)
    assert {row.variant: row.accuracy.value for row in tag.variants} == {
        variant: right / 10 for variant, right in RIGHT.items()
    }
    tagger = tag.variants[0]
    assert tagger.calibration_error.value == pytest.approx(0.05)
    assert tagger.brier.value == pytest.approx(
        (8 * (0.25**2 + 2 * 0.125**2) + 2 * (0.75**2 + 0.875**2 + 0.125**2)) / 10
    )
    assert tagger.macro_f1.value == pytest.approx((16 / 18 + 0) / 2)
    assert [row.coverage.value for row in tagger.thresholds] == [1, 1, 1, 1, 0, 0]
    assert [row.accuracy.value for row in tagger.thresholds[:4]] == [0.8] * 4


def test_the_gain_is_over_the_better_rival_on_the_same_products(store: Settings) -> None:
    (tag,) = report.evaluate_tags(store, replicates=2000, seed=0).tags
    assert tag.rival == "text tower"
    assert tag.gain.value == pytest.approx(0.2)
    # The two variants differ only on both products of the fourth of five designs: its draws are binomial(5, 1/5).
    draws = np.random.default_rng(1).binomial(5, 0.2, size=100_000) / 5
    assert tag.gain.ci95 == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=1e-9)


def test_an_undefined_metric_is_nan_and_noted_and_null_in_json(store: Settings) -> None:
    result = report.evaluate_tags(store, replicates=50, seed=0)
    highest = result.tags[0].variants[0].thresholds[-1]
    assert math.isnan(highest.accuracy.value)
    assert (
        "child_gender, image and text: accuracy undefined from threshold 0.8, no probability is that high"
        in result.notes
    )
    assert "child_age: not evaluated, the test split has no predictions for it" in result.notes
    figures = json.loads(result.to_json())
    assert figures["tags"][0]["variants"][0]["thresholds"][-1]["accuracy"] == {"value": None, "ci95": [None, None]}


def test_only_the_newest_tagger_and_the_test_split_are_evaluated(store: Settings) -> None:
    everything = dict.fromkeys(TAG_VARIANTS, 10)
    delta.append(store.table("tag_predictions"), predictions(everything, split="calibration"))
    assert report.evaluate_tags(store, replicates=50, seed=0).tags[0].variants[0].accuracy.value == 0.8
    delta.append(store.table("tag_predictions"), predictions(everything, version="tagger-b", later=1))
    result = report.evaluate_tags(store, replicates=50, seed=0)
    assert (result.tagger_version, result.tags[0].variants[0].accuracy.value) == ("tagger-b", 1.0)


def test_predictions_that_two_runs_wrote_are_counted_once(store: Settings) -> None:
    once = report.evaluate_tags(store, replicates=50, seed=0).to_json()
    delta.append(store.table("tag_predictions"), predictions(RIGHT))
    assert report.evaluate_tags(store, replicates=50, seed=0).to_json() == once


def test_variants_with_different_products_are_refused(tmp_path: Path) -> None:
    store = world.store(tmp_path)
    delta.append(store.table("tag_predictions"), predictions(RIGHT).slice(0, 45))
    with pytest.raises(VitrineError, match="image tower has predictions for other products than image and text"):
        report.evaluate_tags(store, replicates=50, seed=0)


def test_the_command_prints_the_tables_and_writes_the_json(store: Settings, tmp_path: Path) -> None:
    file = tmp_path / "out" / "tags.json"
    done = run_main("consume", "tags-report", "--store", str(store.file), "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "child_gender: 10 products of 5 groups" in done.stdout
    assert json.loads(file.read_text())["tags"][0]["gain"]["value"] == pytest.approx(0.2)


def test_without_predictions_the_command_reports_one_line(tmp_path: Path) -> None:
    store = world.store(tmp_path)
    done = run_main("consume", "tags-report", "--store", str(store.file))
    assert done.returncode == 1
    assert "no table `tag_predictions`" in done.stderr
    assert done.stderr.strip().count("\n") == 0


def draw_predictions(rng: np.random.Generator, groups: int, sharpness: float) -> TagPredictions:
    """Return predictions for groups of one to three products; calibrated at sharpness 1, overconfident above 1."""
    group = np.repeat(np.arange(groups), rng.integers(1, 4, groups))
    calibrated = 0.9 * rng.dirichlet(np.full(4, 0.7), groups)[group] + 0.1 * rng.dirichlet(np.ones(4), len(group))
    truth = (calibrated.cumsum(axis=1) < rng.random((len(group), 1))).sum(axis=1).clip(0, 3)
    probabilities = calibrated**sharpness
    return TagPredictions(probabilities / probabilities.sum(axis=1, keepdims=True), truth, group)


@pytest.mark.parametrize("sharpness", [1.0, 1.3, 2.0])
def test_the_interval_of_the_calibration_error_has_the_value_and_covers_the_mean_over_samples(sharpness: float) -> None:
    rng, groups, worlds = np.random.default_rng(0), 60, 200
    once = np.ones((1, groups), dtype=np.int64)
    average = np.mean(
        [metrics.compute_calibration_error(draw_predictions(rng, groups, sharpness), once)[0] for _ in range(500)]
    )
    covered = 0
    for number in range(worlds):
        weights = metrics.draw_group_weights(groups, 200, number)
        estimate = report.estimate_bias_corrected(
            metrics.compute_calibration_error(draw_predictions(rng, groups, sharpness), weights)
        )
        assert estimate.ci95[0] <= estimate.value <= estimate.ci95[1]
        covered += estimate.ci95[0] <= average <= estimate.ci95[1]
    assert covered / worlds > 0.9


def test_the_interval_of_a_calibration_error_is_not_below_zero() -> None:
    assert report.estimate_bias_corrected(np.array([0.01, 0.0, 0.05, 0.07])).ci95[0] == 0.0
    assert math.isnan(report.estimate_bias_corrected(np.array([np.nan, 0.0, 0.05])).ci95[0])
