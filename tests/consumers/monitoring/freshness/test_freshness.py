"""`consume freshness` on tables of known age."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rich.console import Console

from consumers.monitoring.freshness.freshness import OPTIONAL_VIEWS, REQUIRED_VIEWS, Freshness, check
from consumers.monitoring.terminal import as_json, freshness_table
from feature_repo import config, run_log, sources
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import PRODUCT_ACTIVE, TIMESTAMP
from tests.deployments import run_main

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def make_store(folder: Path) -> Settings:
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text("project: test\noffline_store:\n  path: offline\n")
    return config.load(folder / "feature_store.yaml")


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    return make_store(tmp_path / "store")


def write(store: Settings, view: str, rows: dict[str, float | None], created: float = 0.5) -> None:
    """Write one row for each product, with the age of its event in hours; None writes no timestamp."""
    table = pa.table(
        {
            "product_id": list(rows),
            "event_timestamp": pa.array(
                [None if age is None else NOW - HOUR * age for age in rows.values()], TIMESTAMP
            ),
            "created_timestamp": pa.array([NOW - HOUR * created] * len(rows), TIMESTAMP),
        }
    )
    delta.append(store.table(view), table)


def fresh(store: Settings, **hours: dict[str, float | None]) -> None:
    for view in REQUIRED_VIEWS:
        write(store, view, hours.get(view, {"a": 30, "b": 2, "c": 1}))


def run_check(store: Settings, max_age: timedelta = timedelta(days=1), products: Path | None = None) -> Freshness:
    return check(store, max_age=max_age, now=NOW, products=products)


def test_each_view_has_lag_age_and_coverage(store: Settings) -> None:
    fresh(store, product_tags={"a": 30, "b": 3})
    result = run_check(store)
    assert [view.view for view in result.views] == list(REQUIRED_VIEWS)
    assert result.active == 3
    tags = result.views[2]
    assert (tags.newest_event, tags.lag_seconds) == (NOW - 3 * HOUR, 3 * 3600)
    assert (tags.newest_created, tags.age_seconds) == (NOW - 0.5 * HOUR, 1800)
    assert [view.covered for view in result.views] == [3, 3, 2]
    assert result.breaches == []


def test_a_view_exactly_as_old_as_allowed_is_fresh(store: Settings) -> None:
    fresh(store)
    assert run_check(store, max_age=HOUR).breaches == []
    assert len(run_check(store, max_age=HOUR - timedelta(seconds=1)).breaches) == 3


def test_a_late_view_names_its_own_command(store: Settings) -> None:
    fresh(store, product_tags={"a": 50})
    assert run_check(store).breaches == ["product_tags: newest event 2d 2h ago, at most 1d allowed; run `produce tags`"]


def test_views_computed_from_a_late_one_name_the_command_to_run_first(store: Settings) -> None:
    fresh(store, product_embedding={"a": 50}, product_tags={"a": 50})
    assert run_check(store).breaches == [
        "product_embedding: newest event 2d 2h ago, at most 1d allowed; run `produce embeddings`",
        "product_tags: newest event 2d 2h ago, at most 1d allowed; "
        "run `produce embeddings` first, because it is computed from product_embedding",
    ]


def test_a_view_without_a_table_is_late(store: Settings) -> None:
    write(store, "product_catalogue", {"a": 1})
    assert run_check(store).breaches == [
        "product_embedding: the table does not exist; run `produce embeddings`",
        "product_tags: the table does not exist; run `produce embeddings` first, because it is computed from "
        "product_embedding",
    ]
    assert [view.covered for view in run_check(store).views] == [1, 0, 0]


def test_a_missing_view_names_its_own_command_though_what_it_is_computed_from_is_late(store: Settings) -> None:
    write(store, "product_catalogue", {"a": 50})
    write(store, "product_embedding", {"a": 50})
    assert run_check(store).breaches[2] == "product_tags: the table does not exist; run `produce tags`"


def test_a_view_whose_command_has_run_and_found_nothing_newer_says_so(store: Settings) -> None:
    fresh(store, **{view: {"a": 50} for view in REQUIRED_VIEWS})
    write(store, "product_codes", {"a": 50})
    for step in ("catalogue", "embeddings", "codes"):
        with run_log.record_run(store, step, now=NOW - HOUR):
            pass
    late, found = (
        "newest event 2d 2h ago, at most 1d allowed",
        "`produce catalogue` ended 1h ago and found nothing newer",
    )
    assert [re.sub(r"59m( \d+s)?", "1h", line) for line in run_check(store).breaches] == [
        f"product_catalogue: {late}; {found}: check the event timestamps of its source, or allow a higher age",
        f"product_embedding: {late}; {found}, and this view is computed from product_catalogue",
        f"product_tags: {late}; run `produce tags`",
        f"product_codes: {late}; {found}, and this view is computed from product_catalogue",
    ]
    hours_later = check(store, max_age=timedelta(hours=30), now=NOW + 30 * HOUR)
    assert "run `produce catalogue`" in hours_later.breaches[0], "the run is as old as the age that is allowed"


def test_a_store_without_tables_is_late_and_its_active_products_are_unknown(store: Settings) -> None:
    result = run_check(store)
    assert len(result.breaches) == 3
    assert result.active is None


def test_events_after_now_do_not_make_a_view_fresh(store: Settings) -> None:
    fresh(store, product_tags={"a": 50, "b": -5})
    tags = run_check(store).views[2]
    assert (tags.lag_seconds, tags.covered, tags.after_now) == (50 * 3600, 1, 1)
    assert tags.breach


def test_a_view_with_only_events_after_now_is_late(store: Settings) -> None:
    fresh(store, product_tags={"b": -5})
    assert run_check(store).breaches == [
        "product_tags: no row up to now, but 1 after now: the clock or the source is wrong; run `produce tags`"
    ]


def test_rows_without_a_timestamp_are_ignored_and_counted(store: Settings) -> None:
    fresh(store, product_tags={"a": 3, "b": None, "c": -5})
    tags = run_check(store).views[2]
    assert (tags.covered, tags.after_now, tags.untimed) == (1, 1, 1)
    assert "product_tags: ignored rows: 1 after now, 1 without a timestamp" in printed(store)


def test_a_view_with_only_ignored_rows_is_late(store: Settings) -> None:
    fresh(store, product_tags={"a": None, "b": -5, "c": -6})
    assert run_check(store).breaches == [
        "product_tags: no row up to now, but 2 after now and 1 without a timestamp: the clock or the source is wrong; "
        "run `produce tags`"
    ]


def test_a_product_of_the_catalogue_is_active_from_its_first_event_on(store: Settings) -> None:
    fresh(store, product_catalogue={"a": 30, "b": -5, "c": None})
    result = run_check(store)
    assert result.active == 1
    assert [view.covered for view in result.views] == [1, 1, 1]


def test_a_removed_product_is_not_active_until_it_is_back(store: Settings) -> None:
    fresh(store)
    for hours, active in ((20, False), (10, True), (-1, False)):
        timestamp = pa.array([NOW - HOUR * hours], TIMESTAMP)
        columns = [["a"], [active], timestamp, timestamp]
        delta.append(store.table("product_active"), pa.table(columns, schema=PRODUCT_ACTIVE))
        assert run_check(store).active == (3 if hours < 20 else 2)


def test_a_created_timestamp_after_now_has_no_age(store: Settings) -> None:
    fresh(store)
    write(store, "product_tags", {"d": 1}, created=-48)
    ages = [view.age_seconds for view in run_check(store).views]
    assert ages == [1800, 1800, None]
    assert printed(store).count("after --now") == 1
    assert json.loads(as_json(run_check(store)))["views"][2]["age_seconds"] is None


def printed(store: Settings, width: int = 200) -> str:
    terminal = Console(width=width)
    with terminal.capture() as written:
        terminal.print(freshness_table(run_check(store)))
    return written.get()


def test_the_table_keeps_every_column_in_eighty_characters(store: Settings) -> None:
    fresh(store, product_tags={"a": 30 * 24 + 11})
    write(store, "product_tags", {"b": 30 * 24 + 11}, created=-48)
    (last,) = [line.split() for line in printed(store, width=80).splitlines() if "product_tags" in line]
    assert last == ["product_tags", "2026-01-30", "30d", "11h", "2026-03-03", "after", "--now", "2", "of", "3"]


def test_coverage_counts_only_products_on_sale(store: Settings, tmp_path: Path) -> None:
    fresh(store)
    file = tmp_path / "products.parquet"
    pq.write_table(pa.table({"product_id": ["b", "c", "d", "d"], "title": ["", "", "", ""]}), file)
    result = run_check(store, products=file)
    assert result.active == 3
    assert [view.covered for view in result.views] == [2, 2, 2]


def test_only_keys_and_timestamps_are_read(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh(store)
    requested: list[list[str] | None] = []
    reading = delta.read

    def watched(path: Path, columns: list[str] | None = None, **options: Any) -> pa.Table:
        requested.append(columns)
        return reading(path, columns, **options)

    monkeypatch.setattr(delta, "read", watched)
    run_check(store)
    assert requested
    assert all(
        columns and set(columns) <= {"product_id", "event_timestamp", "created_timestamp"} for columns in requested
    )


def test_every_registered_view_is_checked() -> None:
    from feast import FeatureView

    from feature_repo import definitions

    views = [view for view in vars(definitions).values() if isinstance(view, FeatureView)]
    assert {view.batch_source.path for view in views} == {*REQUIRED_VIEWS, *OPTIONAL_VIEWS}
    assert sources.delta_source("x").path == "x"


def test_an_optional_view_is_checked_once_it_has_a_table(store: Settings) -> None:
    fresh(store, product_tags={"a": 50})
    write(store, "product_codes", {"a": 3, "b": 60})
    users = pa.table({"user_id": ["u"], "event_timestamp": [NOW - 30 * HOUR], "created_timestamp": [NOW - HOUR]})
    delta.append(store.table("user_interest"), users)
    result = run_check(store)
    assert [(view.view, view.covered) for view in result.views[3:]] == [("product_codes", 2), ("user_interest", None)]
    assert result.breaches == [
        "product_tags: newest event 2d 2h ago, at most 1d allowed; run `produce tags`",
        "user_interest: newest event 1d 6h ago, at most 1d allowed; run `produce interests`",
    ]
    assert "user_interest" in printed(store)


@hypothesis_settings(max_examples=hypothesis_settings.default.max_examples // 4)
@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-20, 60), min_size=1, max_size=12))
def test_lag_and_coverage_agree_with_a_loop_over_the_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, float]
) -> None:
    store = make_store(tmp_path_factory.mktemp("rows"))
    fresh(store, product_embedding=rows)
    view = run_check(store).views[1]
    past = [timedelta(hours=age) for age in rows.values() if NOW - HOUR * age <= NOW]
    assert view.after_now == len(rows) - len(past)
    assert view.lag_seconds == (pytest.approx(min(past).total_seconds(), abs=1e-3) if past else None)
    assert view.covered == len({"a", "b", "c"} & {name for name, age in rows.items() if NOW - HOUR * age <= NOW})


def consume(store: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["consume", "freshness", "--store", str(store.file), *arguments]
    return run_main(*command)


def test_the_command_exits_with_0_if_all_views_are_fresh_and_writes_json(store: Settings, tmp_path: Path) -> None:
    fresh(store)
    file = tmp_path / "freshness.json"
    done = consume(store, "--now", "2026-03-01T12:00Z", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "product_embedding" in done.stdout
    assert json.loads(file.read_text()) == json.loads(as_json(run_check(store)))


def test_the_command_exits_with_1_and_a_line_for_each_late_view(store: Settings) -> None:
    fresh(store, product_tags={"a": 50})
    done = consume(store, "--now", "2026-03-01T20:00+08:00", "--max-age", "6h")
    assert done.returncode == 1
    assert done.stderr.strip() == "product_tags: newest event 2d 2h ago, at most 6h allowed; run `produce tags`"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--max-age", "soon"), 2, "not a duration: 'soon'"),
        (("--products", "nowhere.parquet"), 1, "nowhere.parquet: no such file"),
    ],
)
def test_a_user_error_is_one_line(store: Settings, arguments: tuple[str, str], code: int, complaint: str) -> None:
    fresh(store)
    done = consume(store, *arguments)
    assert done.returncode == code
    assert complaint in done.stderr
    assert done.stderr.strip().count("\n") == 0
