"""Every statistic, on tables with one change at a time."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from prometheus_client import Metric
from typer.testing import CliRunner

from consumers.cli import app
from consumers.monitoring.drift.check import Drift, check
from consumers.monitoring.prometheus import CheckCollector
from consumers.monitoring.terminal import as_json
from consumers.monitoring.watcher import CheckState, WatchedCheck
from feature_repo import config
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import PRODUCT_CODES, PRODUCT_EMBEDDING, PRODUCT_TAGS, TAGS
from tests.deployments import run_main

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WIDTH, PRODUCTS = 12, 400
Columns = dict[str, list]
Change = Callable[[dict[str, Columns], NDArray[np.bool_]], None]


def tables(seed: int, *, updates: bool = False) -> tuple[dict[str, Columns], NDArray[np.bool_]]:
    """Return the columns of each view for products of five weeks, and which rows are of the last week."""
    generator = np.random.default_rng(seed)
    hours = generator.uniform(0, 35 * 24, PRODUCTS)
    product = [f"p{i}" for i in range(PRODUCTS)]
    event = [NOW - timedelta(hours=float(one)) for one in hours]
    if updates:  # a second version of every product, a little different, a while after the first
        product, event = product * 2, [one - timedelta(days=90) for one in event] + event
    n = len(product)
    vectors = np.tile(generator.standard_normal((PRODUCTS, WIDTH)), (n // PRODUCTS, 1))
    vectors += 0.02 * generator.standard_normal(vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stamps = {"product_id": product, "event_timestamp": event, "created_timestamp": event}
    labels = generator.integers(0, 3, n)
    lists = [row.tolist() for row in vectors]
    rows: dict[str, Columns] = {
        "product_catalogue": {**stamps, "category": [("toys>a", "shoes>b", "beds>c")[one] for one in labels]},
        "product_embedding": {
            **stamps,
            **{name: list(lists) for name in ("image_vector", "text_vector", "fused_vector", "similar_vector")},
            "has_image": [True] * n,
            "has_text": [True] * n,
            "encoder_version": ["encoder@1"] * n,
        },
        "product_tags": {
            **stamps,
            **{tag: [f"{tag} {one}" for one in labels] for tag in TAGS},
            **{
                f"{tag}_probability": generator.uniform(0.4, 1, n).tolist()
                for tag in ("child_age", "child_gender", "category")
            },
            "child_age_distribution": [[1.0]] * n,
            "child_gender_distribution": [[1.0]] * n,
            "tagger_version": ["tagger-1"] * n,
            "encoder_version": ["encoder@1"] * n,
        },
        "product_codes": {
            **stamps,
            "codes": generator.integers(0, 16, (n, 2)).tolist(),
            "semantic_id": [""] * n,
            "codebook_version": ["codes-1"] * n,
            "encoder_version": ["encoder@1"] * n,
        },
    }
    return rows, np.array([one > NOW - timedelta(days=7) for one in event])


def written(folder: Path, rows: dict[str, Columns]) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text("project: test\noffline_store:\n  path: offline\n")
    store = config.load(folder / "feature_store.yaml")
    schemas = {"product_embedding": PRODUCT_EMBEDDING, "product_tags": PRODUCT_TAGS, "product_codes": PRODUCT_CODES}
    stamp = pa.timestamp("us", tz="UTC")
    stamps = [("event_timestamp", stamp), ("created_timestamp", stamp)]
    plain = pa.schema([("product_id", pa.string()), *stamps, ("category", pa.string())])
    for view, columns in rows.items():
        schema = schemas.get(view, plain)
        rest = {name: [None] * len(columns["product_id"]) for name in schema.names if name not in columns}
        delta.append(store.table(view), pa.table(columns | rest, schema=schema))
    return store


def run_drift_check(folder: Path, change: Change | None = None, *, seed: int = 0, updates: bool = False) -> Drift:
    rows, last_week = tables(seed, updates=updates)
    if change:
        change(rows, last_week)
    store = written(folder, rows)
    return check(
        store, now=NOW, window=timedelta(days=7), before=timedelta(days=28), checks_per_alarm=100, sample=2000, seed=0
    )


def alarms(result: Drift) -> set[tuple[str, str, str]]:
    return {(one.view, one.subject, one.name) for one in result.statistics if one.is_alarm}


@pytest.mark.parametrize("seed", range(4))
def test_there_is_no_alarm_if_nothing_changed(tmp_path: Path, seed: int) -> None:
    result = run_drift_check(tmp_path, seed=seed)
    assert result.breaches == []
    assert {one.view for one in result.statistics} == {
        "product_catalogue",
        "product_embedding",
        "product_tags",
        "product_codes",
    }
    assert all("too few products have an earlier version" in line for line in result.not_judged)


def _of_last_week(view: str, column: str, value: Callable[[object, int], object], *, every: int = 1) -> Change:
    def change(rows: dict[str, Columns], last_week: NDArray[np.bool_]) -> None:
        for i in np.flatnonzero(last_week)[::every]:
            rows[view][column][i] = value(rows[view][column][i], int(i))

    return change


@pytest.mark.parametrize(
    ("change", "alarm"),
    [
        (
            _of_last_week("product_embedding", "image_vector", lambda old, i: None, every=4),
            ("product_embedding", "image_vector", "missing"),
        ),
        (
            _of_last_week("product_embedding", "text_vector", lambda old, i: [0.0] * WIDTH, every=4),
            ("product_embedding", "text_vector", "zero"),
        ),
        (
            _of_last_week("product_embedding", "text_vector", lambda old, i: [float("nan")] * WIDTH, every=4),
            ("product_embedding", "text_vector", "not a number"),
        ),
        (
            _of_last_week("product_embedding", "fused_vector", lambda old, i: [1.2 * one for one in old]),  # type: ignore[attr-defined]
            ("product_embedding", "fused_vector", "norm"),
        ),
        (
            _of_last_week("product_embedding", "fused_vector", lambda old, i: [abs(one) for one in old]),  # type: ignore[attr-defined]
            ("product_embedding", "fused_vector", "centroid shift"),
        ),
        (
            _of_last_week("product_embedding", "fused_vector", lambda old, i: [abs(one) for one in old]),  # type: ignore[attr-defined]
            ("product_embedding", "fused_vector", "classifier AUC"),
        ),
        (
            _of_last_week("product_tags", "child_age", lambda old, i: None, every=3),
            ("product_tags", "child_age", "PSI"),
        ),
        (
            _of_last_week("product_tags", "child_gender_probability", lambda old, i: 0.5 + i % 10 / 100),
            ("product_tags", "child_gender", "PSI of scores"),
        ),
        (
            _of_last_week("product_codes", "codes", lambda old, i: [i % 3, old[1]]),  # type: ignore[index]
            ("product_codes", "level 1", "usage entropy"),
        ),
        (
            _of_last_week("product_codes", "codes", lambda old, i: [old[0], 5]),  # type: ignore[index]
            ("product_codes", "level 2", "usage entropy"),
        ),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_a_change_in_the_last_week_is_an_alarm_of_its_own_statistic(
    tmp_path: Path, change: Change, alarm: tuple[str, str, str]
) -> None:
    result = alarms(run_drift_check(tmp_path, change))
    assert alarm in result
    assert {(view, subject) for view, subject, _ in result} == {alarm[:2]}, "and of nothing else"


def test_missing_rows_are_an_alarm(tmp_path: Path) -> None:
    def change(rows: dict[str, Columns], last_week: NDArray[np.bool_]) -> None:
        gone = set(np.flatnonzero(last_week)[::3].tolist())
        for name, column in rows["product_tags"].items():
            rows["product_tags"][name] = [one for i, one in enumerate(column) if i not in gone]

    assert alarms(run_drift_check(tmp_path, change)) == {("product_tags", "rows", "missing")}


def test_new_product_versions_keep_their_neighbours_if_nothing_changed(tmp_path: Path) -> None:
    result = run_drift_check(tmp_path, updates=True)
    assert (result.breaches, result.not_judged) == ([], [])
    churn = [one for one in result.statistics if one.name == "neighbour churn"]
    assert len(churn) == 3
    assert all(one.value < 0.1 for one in churn)


def test_new_versions_with_moved_vectors_lose_their_neighbours(tmp_path: Path) -> None:
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((WIDTH, WIDTH)))[0]
    change = _of_last_week("product_embedding", "image_vector", lambda old, i: (np.array(old) @ turn).tolist())
    result = run_drift_check(tmp_path, change, updates=True)
    assert ("product_embedding", "image_vector", "neighbour churn") in alarms(result)
    assert next(one.value for one in result.statistics if one.is_alarm and one.name == "neighbour churn") > 0.3


def test_a_new_version_written_for_all_products_is_no_alarm(tmp_path: Path) -> None:
    def change(rows: dict[str, Columns], last_week: NDArray[np.bool_]) -> None:
        again = {name: list(column) for name, column in rows["product_embedding"].items()}
        again["encoder_version"] = ["encoder@2"] * len(last_week)
        again["fused_vector"] = [one[::-1] for one in again["fused_vector"]]
        again["created_timestamp"] = [NOW] * len(last_week)
        for name, column in again.items():
            rows["product_embedding"][name] = rows["product_embedding"][name] + column

    result = run_drift_check(tmp_path, change)
    assert result.breaches == []


def test_a_new_tagger_for_the_last_week_only_is_an_alarm(tmp_path: Path) -> None:
    result = run_drift_check(tmp_path, _of_last_week("product_tags", "tagger_version", lambda old, i: "tagger-2"))
    assert result.breaches == [
        "product_tags: tagger_version is tagger-2 now and was tagger-1; 0% of the earlier products have rows of the "
        "new one. Write it for all products, or go back to the old one: the two are never compared"
    ]


def test_a_view_without_a_table_and_a_week_without_products_are_reported_as_skipped(tmp_path: Path) -> None:
    rows, _ = tables(0)
    del rows["product_codes"], rows["product_tags"]
    store = written(tmp_path, rows)
    options = {
        "window": timedelta(days=7),
        "before": timedelta(days=28),
        "checks_per_alarm": 100,
        "sample": 2000,
        "seed": 0,
    }
    result = check(store, now=NOW, **options)  # type: ignore[arg-type]
    assert result.not_judged[-2:] == [
        "product_tags: the table does not exist",
        "product_codes: the table does not exist",
    ]
    empty = check(store, now=NOW + timedelta(days=30), **options)  # type: ignore[arg-type]
    assert (empty.p_value, empty.breaches) == (None, [])
    assert "0 products in the window" in empty.not_judged[0]
    assert (result.no_data, empty.no_data) == (None, empty.not_judged[0])


def _fewer(keep: int) -> Change:
    """Keep only `keep` of the last week's products, in every view."""

    def change(rows: dict[str, Columns], last_week: NDArray[np.bool_]) -> None:
        gone = set(np.flatnonzero(last_week)[keep:].tolist())
        for columns in rows.values():
            for name, values in columns.items():
                columns[name] = [value for i, value in enumerate(values) if i not in gone]

    return change


@pytest.mark.parametrize("kept", [0, 10])
def test_a_feed_that_almost_stops_is_an_alarm_even_if_nothing_else_is_compared(tmp_path: Path, kept: int) -> None:
    usual = np.median(np.bincount(_weeks_ago(0))[1:4])  # the catalogue is not quite old enough for a fourth
    result = run_drift_check(tmp_path, _fewer(kept))
    assert result.p_value is None
    assert result.breaches == [
        f"product_catalogue, rows: {kept} products in 7d, and {usual:,.0f} are usual; "
        "check that the feed is complete (`produce catalogue` lists the rows that it refused)"
    ]
    assert [sample.value for sample in _alarms(json.loads(as_json(result))).samples] == [1.0]


def test_half_the_usual_products_and_a_shop_of_one_week_are_no_alarm(tmp_path: Path) -> None:
    assert run_drift_check(tmp_path / "half", _fewer(40)).breaches == []

    def young(rows: dict[str, Columns], last_week: NDArray[np.bool_]) -> None:
        ago = _weeks_ago(0)
        for columns in rows.values():
            for name, values in columns.items():
                columns[name] = [value for value, weeks in zip(values, ago, strict=True) if weeks == 1]

    assert run_drift_check(tmp_path / "young", young).breaches == []


def _alarms(figures: dict[str, Any]) -> Metric:
    """Return the alarm metric for a check's figures."""
    result = CheckState(WatchedCheck("drift", (), timedelta(days=1)), figures)
    return next(one for one in CheckCollector(lambda: [result]).collect() if one.name == "vitrine_drift_alarms")


def _weeks_ago(seed: int) -> NDArray[np.int64]:
    """Return [products], the age of each product of `tables` in weeks."""
    event = tables(seed)[0]["product_catalogue"]["event_timestamp"]
    return np.array([(NOW - one) // timedelta(days=7) for one in event])


def test_the_command_exits_with_3_if_nothing_could_be_compared(tmp_path: Path) -> None:
    store, file = written(tmp_path, tables(0)[0]), tmp_path / "drift.json"
    line = ["drift", "--store", str(store.file), "--now", "2026-05-01T00:00Z", "--json", str(file)]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 3
    assert "nothing was checked: 0 products in the window and 0 before it" in done.stderr
    assert _alarms(json.loads(file.read_text())).samples == [], "no sample, because nothing was compared"


def test_the_sample_is_by_hash_and_bounded(tmp_path: Path) -> None:
    rows, last_week = tables(0)
    store = written(tmp_path, rows)
    result = check(
        store, now=NOW, window=timedelta(days=7), before=timedelta(days=28), checks_per_alarm=20, sample=40, seed=1
    )
    assert (result.products_now, result.products_before) == (40, 40)
    assert last_week.sum() > 40


def test_the_command_exits_with_1_on_an_alarm_and_says_what_to_do_first(tmp_path: Path) -> None:
    rows, last_week = tables(0)
    _of_last_week("product_embedding", "image_vector", lambda old, i: None)(rows, last_week)
    store, file = written(tmp_path, rows), tmp_path / "drift.json"
    command = ["consume", "drift", "--store", str(store.file), "--json", str(file)]
    command += ["--now", "2026-03-01T00:00Z", "--false-alarm-rate", "0.02"]
    done = run_main(*command)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("product_embedding, image_vector: missing 1.000 is over")
    assert "open some of today's images" in done.stderr
    assert json.loads(file.read_text())["once_in"] == 50
