"""Freshness by slice and compared with objectives, on a store with known timestamps."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from consumers.monitoring.freshness import lags
from consumers.monitoring.freshness.event_history import read_materialization
from consumers.monitoring.freshness.lags import SliceFreshness
from consumers.monitoring.freshness.objectives import STEPS, Objectives, load_objectives
from consumers.monitoring.freshness.report import FreshnessBySlice, build_report
from consumers.ranking import joined_log
from feature_repo import run_log
from feature_repo.config import Settings
from feature_repo.errors import UsageError, VitrineError
from feature_repo.offline import quarantine, retention
from feature_repo.online.open_store import open_configured_table
from feature_repo.schema import TIMESTAMP
from producers.behaviour import interests, neighbours
from producers.captions import run as captions
from producers.catalogue import ingest
from producers.embeddings import existing_rows
from producers.streaming import loop
from tests.consumers.monitoring.freshness.tables import NOW, VIEWS, Row, ago, append, make_store, put_online
from tests.deployments import run_main

DOCS = Path(__file__).parents[4] / "docs"


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    return make_store(tmp_path / "store")


def measure(store: Settings, objectives: Objectives | None = None, **options: object) -> FreshnessBySlice:
    chosen = {
        "max_age": timedelta(days=1),
        "window": timedelta(hours=48),
        "new_for": timedelta(hours=24),
        "categories": 5,
    } | options
    return build_report(store, now=NOW, objectives=objectives or Objectives(), **chosen)  # type: ignore[arg-type]


def the(watched: FreshnessBySlice, view: str, slice_: str = "all") -> SliceFreshness:
    return next(one for one in watched.slices if (one.view, one.slice) == (view, slice_))


def fill(store: Settings, rows: list[Row], *, hours: float = 0.5) -> None:
    """Write the same rows to every view, online since `hours` ago."""
    for view in VIEWS:
        append(store, view, rows)
        put_online(store, view, hours=hours)


def test_lag_runs_from_the_event_until_its_file_came_online(store: Settings) -> None:
    fill(store, [("a", 10), ("b", 4)], hours=3)
    lag = the(measure(store), "product_embedding").lag
    assert (lag.n, lag.p50) == (2, pytest.approx(4 * 3600))
    assert lag.p99 == pytest.approx(3600 * (1 + 0.99 * 6))


def test_an_event_not_online_yet_counts_with_the_time_passed_so_far(store: Settings) -> None:
    fill(store, [("a", 10)], hours=9)
    append(store, "product_catalogue", [("b", 30)])
    append(store, "product_embedding", [("b", 30)])
    result = the(measure(store), "product_embedding")
    assert (result.covered, result.online, result.waiting, result.lag.n) == (2, 1, 1, 2)
    assert result.lag.p50 == pytest.approx((1 + 30) / 2 * 3600), "offline and not online counts as 30 hours so far"
    assert the(measure(store), "product_tags").lag.p50 == pytest.approx((1 + 30) / 2 * 3600), "so does what is nowhere"


def test_a_row_answers_every_earlier_event_of_its_product(store: Settings) -> None:
    append(store, "product_catalogue", [("a", 20), ("a", 8)])
    append(store, "product_embedding", [("a", 7)])
    put_online(store, "product_embedding", hours=6)
    lag = the(measure(store), "product_embedding").lag
    assert (lag.n, lag.p50) == (2, pytest.approx((14 + 2) / 2 * 3600))


def test_rows_that_a_compaction_moves_during_the_check_are_online(store: Settings) -> None:
    fill(store, [("a", 1)])
    append(store, "product_embedding", [("b", 2)])
    put_online(store, "product_embedding", hours=0.5)
    online, path = open_configured_table(store), store.table("product_embedding")
    assert online is not None
    state = read_materialization(online, "product_embedding", path)
    retention.compact(path)
    timeline = lags.ViewTimeline.read(path, state, NOW)
    assert timeline is not None
    assert timeline.rows["online"].tolist() == [True, True]


def test_rows_that_came_online_after_now_have_no_lag(store: Settings) -> None:
    fill(store, [("a", 10)], hours=-500)
    result = the(measure(store), "product_embedding")
    assert (result.online, result.unmeasured, result.lag.n, result.waiting) == (1, 1, 0, 0)


def test_new_products_and_categories_are_slices_of_their_own(store: Settings) -> None:
    append(store, "product_catalogue", [("old", 100), ("old", 3)], category="toys>blocks")
    append(store, "product_catalogue", [("new", 3)], category="shoes>boots")
    append(store, "product_embedding", [("old", 3)])
    result = measure(store)
    new = the(result, "product_embedding", "new products")
    assert (new.active, new.covered, new.waiting) == (1, 0, 1)
    toys = the(result, "product_embedding", "category toys")
    assert (toys.active, toys.covered) == (1, 1)
    assert the(result, "product_embedding", "category shoes").coverage == 0


def test_each_encoder_version_has_its_own_coverage(store: Settings) -> None:
    append(store, "product_catalogue", [("a", 9), ("b", 9)])
    append(store, "product_embedding", [("a", 9), ("b", 9)], version="encoder@1")
    append(store, "product_embedding", [("a", 9)], version="encoder@2")
    result = measure(store)
    assert the(result, "product_embedding", "encoder_version encoder@1").coverage == 1
    assert the(result, "product_embedding", "encoder_version encoder@2").coverage == 0.5


def write_impressions(file: Path, rows: list[Row]) -> Path:
    columns = {
        "product_id": pa.array([product for product, _ in rows], pa.string()),
        "event_timestamp": pa.array([ago(hours) for _, hours in rows], TIMESTAMP),
    }
    pq.write_table(pa.table(columns), file)
    return file


def test_a_log_in_any_form_gives_the_same_figures(store: Settings, tmp_path: Path) -> None:
    append(store, "product_catalogue", [("1", 40), ("2", 40)])
    log = pq.read_table(write_impressions(tmp_path / "log.parquet", [("1", 20), ("2", 4), ("1", 90)]))
    ids, times = log["product_id"], log["event_timestamp"]
    text = pa.array([time.isoformat() for time in times.to_pylist()])
    forms = [(ids.cast(pa.int64()), times), (ids.dictionary_encode(), times), (ids, text)]
    files = [tmp_path / f"{number}.parquet" for number in range(len(forms))]
    for file, columns in zip(files, forms, strict=True):
        pq.write_table(pa.table(list(columns), names=log.column_names), file)
    rows = [f"{product},{time}" for product, time in zip(ids.to_pylist(), text.to_pylist(), strict=True)]
    (tmp_path / "log.csv").write_text("\n".join([",".join(log.column_names), *rows]))
    found = [lags.read_log(file).to_dict("list") for file in (tmp_path / "log.parquet", *files, tmp_path / "log.csv")]
    assert all(each == found[0] for each in found)
    result = the(measure(store, impressions=tmp_path / "log.csv"), "product_catalogue")
    assert (result.impressions, result.served) == (2, 2)


def test_impressions_are_covered_by_earlier_rows_and_have_their_age(store: Settings, tmp_path: Path) -> None:
    append(store, "product_catalogue", [("a", 40), ("b", 40)])
    append(store, "product_embedding", [("a", 40), ("a", 4)])
    log = write_impressions(tmp_path / "log.parquet", [("a", 41), ("a", 20), ("a", 4), ("b", 4), ("a", 90), ("a", -1)])
    result = the(measure(store, impressions=log), "product_embedding")
    assert (result.impressions, result.served) == (4, 2), "not those before the window, nor those after now"
    assert result.served_age.p50 == pytest.approx(10 * 3600), "20 hours and none"


ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), max_size=8)


@hypothesis_settings(max_examples=hypothesis_settings.default.max_examples // 4)
@given(catalogue=ROWS, batches=st.lists(st.tuples(ROWS, st.integers(-5, 60)), max_size=3), shown=ROWS)
@example(catalogue=[("a", 0)], batches=[([("a", 0)], 0), ([("a", 0)], -1)], shown=[])
@example(catalogue=[("a", 9)], batches=[([("a", 9)], -1), ([("a", 4)], 2)], shown=[])
def test_lags_and_coverage_agree_with_loops_over_the_rows(
    tmp_path_factory: pytest.TempPathFactory,
    catalogue: list[Row],
    batches: list[tuple[list[Row], int]],
    shown: list[Row],
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    store = make_store(folder / "store")
    append(store, "product_catalogue", [("z", 1), *catalogue])
    rows: list[tuple[str, float, float]] = []
    for batch, moment in batches:
        append(store, "product_embedding", batch)
        put_online(store, "product_embedding", hours=moment)
        rows += [(product, hours, moment) for product, hours in batch]
    log = write_impressions(folder / "log.parquet", shown)
    watched = measure(store, impressions=log)
    if not batches:
        assert not [one for one in watched.slices if one.view == "product_embedding"]
        return
    result = the(watched, "product_embedding")
    lags, waiting, unmeasured = [], 0, 0
    for product, event in {("z", 1), *catalogue}:
        if event >= 48:
            continue
        answers = [moment for other, hours, moment in rows if other == product and hours <= event]
        known = [moment for moment in answers if moment >= 0]
        waiting += not answers
        unmeasured += bool(answers) and not known
        lags += [event] if not answers else [event - max(known)] if known else []
    assert (result.waiting, result.unmeasured, result.lag.n) == (waiting, unmeasured, len(lags))
    if lags:
        assert result.lag.p95 == pytest.approx(float(np.quantile(lags, 0.95)) * 3600)
    active = {"z", *(product for product, _ in catalogue)}
    assert result.covered == len(active & {product for product, _, _ in rows})
    seen = [(product, hours) for product, hours in shown if product in active and hours < 48]
    held = [[event for other, event, _ in rows if other == product and event >= hours] for product, hours in seen]
    assert (result.impressions, result.served) == (len(seen), sum(map(bool, held)))


def test_refused_rows_are_counted_by_step_and_reason(store: Settings) -> None:
    fill(store, [("a", 1)])
    refused = [quarantine.RejectedRow(f"p{i}", "image", "no such file", None) for i in range(3)]
    quarantine.add(store, "embeddings", refused, ago(2))
    quarantine.add(store, "catalogue", [quarantine.RejectedRow("p9", "title", "cut, kept", "long")], ago(2))
    quarantine.add(store, "catalogue", [quarantine.RejectedRow("old", "title", "empty", None)], ago(99))
    result = measure(store, Objectives(quarantine={"embeddings": 2, "catalogue": 0}))
    assert [(one.step, one.reason, one.rows) for one in result.quarantined] == [
        ("embeddings", "no such file", 3),
        ("catalogue", "cut, kept", 1),
    ]
    assert result.missed == [
        "quarantine, embeddings: 3 rows refused, at most 2 allowed; check the source of `no such file` (3 rows) first"
    ]


def test_the_last_run_is_the_last_successful_one(store: Settings) -> None:
    fill(store, [("a", 1)], hours=0.5)
    with run_log.record_run(store, "embeddings", now=ago(30)):
        pass
    with pytest.raises(ZeroDivisionError), run_log.record_run(store, "embeddings", now=ago(3)):
        raise ZeroDivisionError
    result = measure(store, Objectives(defaults={"last_run": 26 * 3600.0}))
    embedding = result.view_runs[1]
    assert embedding.produced is not None
    assert abs(embedding.produced - ago(30)) < timedelta(minutes=5)
    assert (embedding.materialized, embedding.watermark) == (ago(0.5), ago(-1e4))
    assert [(run.step, run.ending) for run in result.runs] == [("embeddings", "failed"), ("embeddings", "done")]
    assert len(result.missed) == 1
    assert result.missed[0] == (
        "product_embedding: time since the producer's last successful run 1d 5h, at most 1d 2h allowed; "
        "run `produce embeddings`, and check why the last run failed: `produce runs`"
    )


def test_a_missed_objective_says_what_to_do_first(store: Settings) -> None:
    append(store, "product_catalogue", [("a", 10), ("b", 10)])
    append(store, "product_embedding", [("a", 10), ("b", 10)])
    put_online(store, "product_catalogue", hours=9)
    wanted = Objectives(
        defaults={"max_age": 20 * 3600.0, "lag_p95": 3600.0},
        views={"product_tags": {"coverage": 0.9, "lag_p95": 1e9}},
        slices={("product_embedding", "new products"): {"online": 0.5}},
    )
    assert measure(store, wanted).breaches == [
        "product_tags: the table does not exist; run `produce tags`",
        "product_embedding: event-to-online lag, p95 10h, at most 1h allowed; some rows are offline and not online: "
        "run `cd feature_repo && feast materialize-incremental $(date -u +%FT%T)`",
        "product_embedding, new products: active products online 0.0%, at least 50.0% required; some rows are offline "
        "and not online: run `cd feature_repo && feast materialize-incremental $(date -u +%FT%T)`",
    ]


def test_the_objectives_in_the_documentation_can_be_read() -> None:
    wanted = load_objectives(DOCS / "objectives.toml")
    assert wanted.view_bounds("product_tags")["coverage"] == 0.9
    assert wanted.slice_bounds("product_embedding", "new products") == {"lag_p95": 3600.0, "coverage": 0.95}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[defaults", "not valid TOML"),
        ("[default]", "unknown default; expected one of defaults, quarantine, views"),
        ("[defaults]\nlag_p90 = '1h'", "unknown defaults.lag_p90; expected one of age_p95"),
        ("[defaults]\nmax_age = 5", "defaults.max_age is 5; expected an age in quotes"),
        ("[views.product_tags]\nmax_age = 'soon'", "views.product_tags.max_age: not a duration: 'soon'"),
        ("[views.product_tags]\ncoverage = 98", "views.product_tags.coverage is 98; expected a share from 0 to 1"),
        ("[views.product_tags]\ncoverage = true", "expected a share"),
        ("[views.product_tags]\ncoverage = nan", "expected a share"),
        ("[views]\nproduct_tags = 1", r"views.product_tags is 1; expected a table \[views.product_tags\]"),
        ("[views.product_tag]\ncoverage = 1", "unknown views.product_tag; expected one of product_caption"),
        ("[views.product_tags.slices.'new product']\ncoverage = 1", 'slices."new product"; expected "new products", "'),
        ("[quarantine]\ncatalog = 1", "unknown quarantine.catalog; expected one of captions, catalogue"),
        ("[views.product_tags.slices.all]\ncoverage = 1", r'"all" is the whole view; .* in \[views.product_tags\]'),
        ("[views.product_tags.slices.'new products']\nlast_run = '1h'", 'slices."new products".last_run'),
        ("[quarantine]\nembeddings = -1", "quarantine.embeddings is -1; expected a number of rows"),
    ],
)
def test_invalid_objectives_are_errors_that_name_them(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "wanted.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=complaint):
        load_objectives(file)


def test_every_step_with_a_quarantine_can_have_an_objective() -> None:
    steps = {
        existing_rows.STEP,
        ingest.STEP,
        captions.STEP,
        interests.STEP,
        neighbours.STEP,
        loop.STEP,
        joined_log.STEP,
        "tags",
    }
    assert steps == set(STEPS)


def test_a_missing_objectives_file_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match="No such file"):
        load_objectives(tmp_path / "nowhere.toml")


def test_the_command_shows_slices_and_exits_with_1_on_a_missed_objective(store: Settings, tmp_path: Path) -> None:
    fill(store, [("a", 1), ("b", 2)])
    append(store, "product_catalogue", [("c", 3)])
    wanted, figures = tmp_path / "wanted.toml", tmp_path / "figures.json"
    wanted.write_text("[views.product_tags]\ncoverage = 0.9\n")
    command = ["consume", "freshness", "--store", str(store.file), "--json", str(figures)]
    command += ["--now", "2026-03-01T12:00Z", "--objectives", str(wanted)]
    done = run_main(*command)
    assert done.returncode == 1
    assert "new products" in done.stdout
    assert done.stderr.strip() == (
        "product_tags: active products covered 66.7%, at least 90.0% required; run `produce tags`"
    )
    assert json.loads(figures.read_text())["missed"] == [done.stderr.strip()]


def test_nothing_is_online_after_the_files_of_the_online_store_were_deleted(store: Settings) -> None:
    fill(store, [("a", 1), ("b", 2)])
    assert {one.online for one in measure(store).slices if one.slice == "all"} == {2}
    shutil.rmtree(store.file.parent / "online")
    after = measure(store)
    assert {one.online for one in after.slices if one.slice == "all"} == {0}
    assert after.breaches == [
        "the online store does not exist: it is new, or its files were deleted; run `feast apply`, then "
        "`feast materialize-incremental`"
    ]


@pytest.mark.parametrize("by_slice", [(), ("--slices",)])
def test_the_json_is_valid_and_has_every_breach_with_and_without_slices(
    store: Settings, tmp_path: Path, by_slice: tuple[str, ...]
) -> None:
    append(store, "product_catalogue", [("a", 50)])
    figures = tmp_path / "figures.json"
    command = ["consume", "freshness", "--store", str(store.file), "--json", str(figures)]
    done = run_main(*command, "--now", "2026-03-01T12:00Z", *by_slice)
    result = json.loads(figures.read_text(), parse_constant=pytest.fail)
    assert len(result["breaches"]) == 4
    assert "the online store has no views: it is new, or it has lost its data; run `feast apply`" in done.stderr
    assert result["breaches"] == done.stderr.splitlines()
