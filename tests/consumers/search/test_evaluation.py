"""Average precision, and weights and cut-offs from labels."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from consumers.report_json import report_to_json
from consumers.search import evaluation
from consumers.search.calibration import fit_calibration, read_calibration, write_calibration
from consumers.search.cutoffs import bound_precision
from consumers.search.report import TUNED, report_search
from consumers.search.scoring import PARTS
from feature_repo.errors import CorruptDataError, InvalidInputError, NotFoundError
from feature_repo.evaluation.average_precision import compute_average_precision
from tests.consumers.search.conftest import SearchWorld


def slow_average_precision(scores: list[float], is_relevant: list[bool], total: int, cut: int) -> float:
    ranking = [fits for _, fits in sorted(zip(scores, is_relevant, strict=True), key=lambda pair: -pair[0])][:cut]
    precisions = [sum(ranking[: place + 1]) / (place + 1) for place, fits in enumerate(ranking) if fits]
    return sum(precisions) / min(total, cut)


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_equals_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, cut = int(rng.integers(1, 30)), int(rng.integers(1, 12))
    scores, fits = rng.integers(0, 8, n).astype(np.float32), rng.random(n) < 0.4
    total = int(fits.sum()) + int(rng.integers(1, 3))
    expected = slow_average_precision(scores.tolist(), fits.tolist(), total, cut)
    assert compute_average_precision(scores, fits, total, cut) == pytest.approx(expected)


def test_without_relevant_products_it_is_undefined() -> None:
    assert np.isnan(compute_average_precision(np.ones(3), np.zeros(3, bool), 0))


def make_labels(rng: np.random.Generator, n: int = 2000) -> tuple[np.ndarray, np.ndarray, list[str]]:
    parts = rng.normal(size=(len(PARTS), n))
    parts[2, ::5] = np.nan
    odds = 2 * parts[0] + parts[1] - 1
    return parts, rng.random(n) < 1 / (1 + np.exp(-odds)), ["easy" if i % 2 else "rare" for i in range(n)]


def test_weights_follow_the_labels_and_a_cut_off_keeps_the_precision() -> None:
    parts, fits, categories = make_labels(np.random.default_rng(0))
    fitted = fit_calibration("encoder@1", parts, fits, categories, precision=0.9)
    assert fitted.weights["keywords"] == pytest.approx(2, abs=0.3)
    assert fitted.weights["words"] == pytest.approx(1, abs=0.3)
    assert all(weight >= 0 for weight in fitted.weights.values())
    assert set(fitted.cutoffs) == {"easy", "rare"}
    scores = np.nan_to_num(parts).T @ np.array([fitted.weights[part] for part in PARTS])
    for category, cutoff in fitted.cutoffs.items():
        above = (scores >= cutoff) & (np.array(categories) == category)
        assert above.sum() > 50
        assert fits[above].mean() >= 0.9
    probability = fitted.compute_probability(scores.astype(np.float32))
    assert probability[probability > 0.8].mean() == pytest.approx(fits[probability > 0.8].mean(), abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_cut_offs_keep_the_precision_for_queries_that_were_not_labelled(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts, _, categories = make_labels(rng, 40_000)
    queries = np.repeat(np.arange(400), 100)
    # Some queries have more products that fit than others of the same scores.
    odds = 2 * parts[0] + parts[1] - 2 + 2 * rng.normal(size=400)[queries]
    fits, is_labelled = rng.random(len(odds)) < 1 / (1 + np.exp(-odds)), queries < 200
    fitted = fit_calibration(
        "encoder@1",
        parts[:, is_labelled],
        fits[is_labelled],
        [name for name, one in zip(categories, is_labelled, strict=True) if one],
        precision=0.8,
        queries=queries[is_labelled],
    )
    scores = np.nan_to_num(parts).T @ np.array([fitted.weights[part] for part in PARTS])
    is_above = (scores >= np.array([fitted.find_cutoff(name) for name in categories])) & ~is_labelled
    assert fits[is_above].mean() >= 0.77
    assert is_above.sum() > 0.02 * (~is_labelled).sum()


def test_the_labels_of_one_query_say_nothing_about_others() -> None:
    parts, fits, categories = make_labels(np.random.default_rng(0))
    fitted = fit_calibration("encoder@1", parts, fits, categories, queries=np.zeros(len(fits), np.int64))
    assert {fitted.cutoff, *fitted.cutoffs.values()} == {float("inf")}


def test_the_bound_is_that_of_a_binomial_share_if_each_label_is_of_its_own_query() -> None:
    is_relevant = np.arange(400) < 320
    bound = bound_precision(is_relevant, np.ones(400), np.arange(400))
    assert bound == pytest.approx(0.8 - 1.645 * np.sqrt(0.8 * 0.2 / 400), abs=1e-3)


def test_labels_without_contrast_are_refused() -> None:
    parts, fits, categories = make_labels(np.random.default_rng(0), 50)
    with pytest.raises(InvalidInputError, match="at least 10 of each"):
        fit_calibration("encoder@1", parts, np.ones_like(fits), categories)


def test_a_calibration_is_the_same_after_reading(tmp_path: Path) -> None:
    fitted = fit_calibration("encoder@1", *make_labels(np.random.default_rng(0), 400), precision=0.99)
    write_calibration(fitted, tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == fitted
    with pytest.raises(NotFoundError, match="calibrate-search"):
        read_calibration(tmp_path / "none.json")
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(CorruptDataError, match="not a calibration"):
        read_calibration(tmp_path / "c.json")
    good = json.loads(report_to_json(fitted))
    damaged = [good | {"weights": [1]}, good | {"weights": {"image": "a"}}, good | {"intercept": None}]
    damaged += [good | {"cutoff": "a"}, good | {"cutoff": float("nan")}, good | {"cutoffs": {"toys": "a"}}]
    for values in damaged:
        (tmp_path / "c.json").write_text(json.dumps(values))
        with pytest.raises(CorruptDataError, match="not a calibration"):
            read_calibration(tmp_path / "c.json")


def make_table(rows: list[tuple[str, str, float]]) -> pa.Table:
    return pa.table(dict(zip(("query", "product_id", "relevant"), map(list, zip(*rows, strict=True)), strict=True)))


def test_reads_labels_and_leaves_unjudged_products_out(world: SearchWorld) -> None:
    table = make_table([("红色", "p0", 1), ("红色", "p1", 0), ("红色", "gone", 1), ("积木", "p2", 1)])
    queries = evaluation.read_labels(table, world.index)
    assert [(query.text, query.relevant.tolist(), query.judged.tolist()) for query in queries] == [
        ("红色", [0], [0, 1]),
        ("积木", [2], [2]),
    ]
    assert evaluation.count_missing(table, world.index) == 1
    scored = evaluation.score_queries(world.index, world.encoder, queries)
    assert [one.scored.rows.tolist() for one in scored] == [[0, 1], [2]]
    report = report_search(world.index, world.encoder, queries, replicates=20)
    assert {row.name: row.mean for row in report.rows}[TUNED] == 1
    assert report.notes[0].startswith("not calibrated")
    assert '"rows"' in report.to_json()


def test_the_report_of_a_single_query_says_why_it_has_no_calibrated_row(world: SearchWorld) -> None:
    queries = evaluation.read_labels(make_table([("红色", "p0", 1), ("红色", "p1", 0)]), world.index)
    report = report_search(world.index, world.encoder, queries, replicates=20)
    assert report.notes == ("not calibrated: there is 1 query; expected at least 2, one for each half",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("红色", "p0", 1.0), (None, "p1", 1.0)], "row 2 of the labels has no query"),
        ([(" ", "p1", 1.0)], "row 1 of the labels has no query"),
        ([("红色", "p0", 2.0)], "row 1"),
        ([("红色", "p0", 1.0), ("红色", "p0", 0.0)], "two labels for p0"),
        ([("红色", "unknown", 1.0)], "no labelled product"),
    ],
)
def test_labels_that_contradict_or_name_nothing_are_refused(world: SearchWorld, rows: list, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        evaluation.read_labels(make_table(rows), world.index)


@pytest.mark.parametrize(("name", "value"), [("relevant", "yes"), ("product_id", ["p0"]), ("category", ["toys"])])
def test_a_column_of_another_type_is_named(world: SearchWorld, name: str, value: object) -> None:
    row = {"query": "红色", "product_id": "p0", "relevant": 1, name: value}
    with pytest.raises(InvalidInputError, match=f"column `{name}` of the labels"):
        evaluation.read_labels(pa.Table.from_pylist([row]), world.index)
