"""`consume tags-report` on a table whose figures can be reckoned by hand."""

import json
import math
import subprocess
import sys
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
from tests.producers.tags import world

RIGHT = {"image and text": 8, "vectors alone": 7, "bag of words": 5, "text tower": 6, "image tower": 4}
"""Of ten products, how many each variant is right about; each is 0.75 sure of everything."""


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
    made = world.store(tmp_path)
    delta.append(made.table("tag_predictions"), predictions(RIGHT))
    return made


def test_reports_the_figures_of_each_variant(store: Settings) -> None:
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
    assert [at.coverage.value for at in tagger.thresholds] == [1, 1, 1, 1, 0, 0]
    assert [at.accuracy.value for at in tagger.thresholds[:4]] == [0.8] * 4


def test_compares_with_the_better_rival_on_the_same_products(store: Settings) -> None:
    (tag,) = report.evaluate_tags(store, replicates=2000, seed=0).tags
    assert tag.rival == "text tower"
    assert tag.gain.value == pytest.approx(0.2)
    # Of the five designs only the fourth tells the two apart, by both of its products: its draws are binomial(5, 1/5).
    draws = np.random.default_rng(1).binomial(5, 0.2, size=100_000) / 5
    assert tag.gain.ci95 == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=1e-9)


def test_an_undefined_figure_is_nan_null_in_json_and_said(store: Settings) -> None:
    judged = report.evaluate_tags(store, replicates=50, seed=0)
    at_most = judged.tags[0].variants[0].thresholds[-1]
    assert math.isnan(at_most.accuracy.value)
    assert (
        "child_gender, image and text: accuracy undefined from threshold 0.8, no product is that sure" in judged.notes
    )
    assert "child_age: not judged, no labelled product of the test split was predicted" in judged.notes
    figures = json.loads(report.to_json(judged))
    assert figures["tags"][0]["variants"][0]["thresholds"][-1]["accuracy"] == {"value": None, "ci95": [None, None]}


def test_judges_the_newest_tagger_and_the_test_split_alone(store: Settings) -> None:
    everything = dict.fromkeys(TAG_VARIANTS, 10)
    delta.append(store.table("tag_predictions"), predictions(everything, split="calibration"))
    assert report.evaluate_tags(store, replicates=50, seed=0).tags[0].variants[0].accuracy.value == 0.8
    delta.append(store.table("tag_predictions"), predictions(everything, version="tagger-b", later=1))
    judged = report.evaluate_tags(store, replicates=50, seed=0)
    assert (judged.tagger_version, judged.tags[0].variants[0].accuracy.value) == ("tagger-b", 1.0)


def test_two_runs_of_one_tagger_at_once_count_every_product_once(store: Settings) -> None:
    once = report.to_json(report.evaluate_tags(store, replicates=50, seed=0))
    delta.append(store.table("tag_predictions"), predictions(RIGHT))
    assert report.to_json(report.evaluate_tags(store, replicates=50, seed=0)) == once


def test_variants_that_speak_of_other_products_are_no_comparison(tmp_path: Path) -> None:
    store = world.store(tmp_path)
    delta.append(store.table("tag_predictions"), predictions(RIGHT).slice(0, 45))
    with pytest.raises(VitrineError, match="image tower speaks of other products than image and text"):
        report.evaluate_tags(store, replicates=50, seed=0)


def test_the_command_prints_the_tables_and_writes_the_json(store: Settings, tmp_path: Path) -> None:
    file = tmp_path / "out" / "tags.json"
    command = [sys.executable, "-m", "consumers.cli", "tags-report", "--store", str(store.file), "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "child_gender: 10 products of 5 groups" in done.stdout
    assert json.loads(file.read_text())["tags"][0]["gain"]["value"] == pytest.approx(0.2)


def test_without_predictions_the_command_ends_in_one_line(tmp_path: Path) -> None:
    store = world.store(tmp_path)
    command = [sys.executable, "-m", "consumers.cli", "tags-report", "--store", str(store.file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no table `tag_predictions`" in done.stderr
    assert done.stderr.strip().count("\n") == 0


def drawn(chance: np.random.Generator, groups: int, boast: float) -> TagPredictions:
    """What a classifier says of groups of one to three products; above 1 it boasts, at 1 it is calibrated."""
    group = np.repeat(np.arange(groups), chance.integers(1, 4, groups))
    honest = 0.9 * chance.dirichlet(np.full(4, 0.7), groups)[group] + 0.1 * chance.dirichlet(np.ones(4), len(group))
    truth = (honest.cumsum(axis=1) < chance.random((len(group), 1))).sum(axis=1).clip(0, 3)
    said = honest**boast
    return TagPredictions(said / said.sum(axis=1, keepdims=True), truth, group)


@pytest.mark.parametrize("boast", [1.0, 1.3, 2.0])
def test_the_interval_of_the_calibration_error_holds_it_and_what_such_samples_show_on_average(boast: float) -> None:
    chance, groups, worlds = np.random.default_rng(0), 60, 200
    once = np.ones((1, groups), dtype=np.int64)
    average = np.mean([metrics.compute_calibration_error(drawn(chance, groups, boast), once)[0] for _ in range(500)])
    covered = 0
    for number in range(worlds):
        weights = metrics.draw_group_weights(groups, 200, number)
        found = report.estimate_bias_corrected(metrics.compute_calibration_error(drawn(chance, groups, boast), weights))
        assert found.ci95[0] <= found.value <= found.ci95[1]
        covered += found.ci95[0] <= average <= found.ci95[1]
    assert covered / worlds > 0.9


def test_the_interval_of_a_calibration_error_near_zero_does_not_pass_it() -> None:
    assert report.estimate_bias_corrected(np.array([0.01, 0.0, 0.05, 0.07])).ci95[0] == 0.0
    assert math.isnan(report.estimate_bias_corrected(np.array([np.nan, 0.0, 0.05])).ci95[0])
