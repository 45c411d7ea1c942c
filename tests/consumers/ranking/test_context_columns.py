"""Features made of a log's context columns, and the columns that give none."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from consumers.ranking import lightgbm_ranker, report
from consumers.ranking.baseline_features import compute_baseline, list_unused_columns
from consumers.ranking.training_set import RankingTrainingSet
from tests.consumers.ranking.logs import DAY, START, measure_small_lift, small_log

TIMESTAMP = datetime(2026, 1, 1, tzinfo=UTC)
UNUSABLE = {
    "timestamp": pa.scalar(TIMESTAMP),
    "date": pa.scalar(TIMESTAMP.date()),
    "list": pa.scalar([1.0, 2.0]),
    "struct": pa.scalar({"x": 1}),
    "bytes": pa.scalar(b"x"),
    "nothing": pa.scalar(None),
}


def with_columns(data: RankingTrainingSet, **columns: pa.Array | pa.Scalar) -> RankingTrainingSet:
    log = data.impressions
    for name, values in columns.items():
        log = log.append_column(name, pa.repeat(values, len(log)) if isinstance(values, pa.Scalar) else values)
    return replace(data, impressions=log)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([3, 0, None], pa.int16()),
        pa.array([2**40 + 1, 0, None]),
        pa.array([2**64 - 1, 0, None], pa.uint64()),
        pa.array([1e300, 0.5, None]),
        pa.array([True, False, None]),
        pa.array([9, 1, None], pa.decimal128(10, 2)),
    ],
    ids=lambda values: str(values.type),
)
def test_numeric_columns_become_features_and_nulls_become_nan(values: pa.Array) -> None:
    data = small_log(rows=300)
    (added,) = list_added_features(data, x=pa.chunked_array([values] * 100))
    assert added.dtype == np.float32
    assert np.isnan(added[2::3]).all()
    assert (added[0::3] > added[1::3]).all()


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_text_columns_become_categories_numbered_by_first_appearance(kind: pa.DataType) -> None:
    data = small_log(rows=300)
    (added,) = list_added_features(data, x=pa.chunked_array([pa.array(["banner", None, "app"]).cast(kind)] * 100))
    assert added.dtype == np.int32
    assert added[:6].tolist() == [0, -1, 1, 0, -1, 1]


def list_added_features(data: RankingTrainingSet, **columns: pa.Array) -> list[np.ndarray]:
    before, after = compute_baseline(data), compute_baseline(with_columns(data, **columns))
    assert list_unused_columns(with_columns(data, **columns)) == []
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
    return [values for name, values in after.items() if name not in before]


def test_a_column_with_the_name_of_a_feature_does_not_replace_it() -> None:
    data = small_log(rows=300)
    columns = {name: pa.array(np.arange(300.0)) for name in ("price", "hour", "product_clicks", "has_image")}
    assert len(list_added_features(data, **columns)) == 4


def test_a_column_name_can_have_any_characters() -> None:
    data = with_columns(small_log(), **{'a "b", {c}: [d]': pa.scalar(1.0), "位置": pa.scalar("x")})
    early = data.timestamp_us < START + 15 * DAY
    assert np.isfinite(
        lightgbm_ranker.fit_and_score(compute_baseline(data), data.clicked, early, ~early, seeds=[0])
    ).all()


def test_columns_that_are_neither_numbers_nor_text_are_listed_with_their_type() -> None:
    data = with_columns(small_log(rows=300), position=pa.scalar(1), **UNUSABLE)
    assert compute_baseline(data).keys() == compute_baseline(with_columns(small_log(rows=300), p=pa.scalar(1))).keys()
    assert list_unused_columns(data) == [
        "timestamp (timestamp[us, tz=UTC])",
        "date (date32[day])",
        "list (list<item: double>)",
        "struct (struct<x: int64>)",
        "bytes (binary)",
        "nothing (null)",
    ]


def test_terminal_and_report_name_the_columns_of_the_baseline_and_the_unused_ones(tmp_path: Path) -> None:
    data = with_columns(small_log(), colour=pa.scalar("red"), **UNUSABLE)
    run = measure_small_lift(data, days=5)
    note = "Not used, because they hold neither numbers nor text: timestamp (timestamp[us, tz=UTC]), date (date32[day])"
    terminal = Console(width=250)
    with terminal.capture() as output:
        terminal.print(report.to_table(run))
    assert note in " ".join(output.get().split())
    used = "category, brand, price of the catalogue; child_age_months, child_gender, colour of the log."
    assert used in " ".join(output.get().split())
    report.write_report(run, tmp_path / "report.html")
    assert note in (tmp_path / "report.html").read_text()
    assert used in (tmp_path / "report.html").read_text()
    report.write_report(replace(run, unused=()), tmp_path / "report.html")
    assert "Not used" not in (tmp_path / "report.html").read_text()
