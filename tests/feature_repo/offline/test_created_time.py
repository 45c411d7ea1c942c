"""Rows of a run are created after all older rows, whatever the clock says."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import ConflictError
from feature_repo.offline import delta
from feature_repo.offline.created_time import choose_created_timestamp, find_time_after
from producers.cli import app
from tests.producers.catalogue.shop import ingest, open_deployment

NOW = datetime(2026, 6, 1, 12, 0, 0, 123_456, tzinfo=UTC)
TABLE = "product_codes"


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    return open_deployment(tmp_path)


def add_row(store: Settings, created: datetime | None, table: str = TABLE) -> None:
    columns = {"product_id": ["a"], "created_timestamp": pa.array([created], schema.TIMESTAMP)}
    delta.append(store.table(table), pa.table(columns))


@pytest.mark.parametrize("ahead_us", [-3_600_000_000, -1_000_000, -1_000, 0, 1, 999, 1_800_000_000, 3_599_000_000])
def test_the_time_is_later_than_every_row_and_the_clocks_unless_a_row_is_later(
    store: Settings, ahead_us: int, caplog: pytest.LogCaptureFixture
) -> None:
    newest = NOW + timedelta(microseconds=ahead_us)
    for hours in (3, 0, 7):  # of several commits
        add_row(store, newest - timedelta(hours=hours))
    add_row(store, NOW + timedelta(days=1), "product_tags")  # a table that the run does not write
    chosen = choose_created_timestamp(store, [TABLE, "no such table"], NOW)
    assert NOW <= chosen > newest
    assert chosen - max(newest, NOW) <= timedelta(milliseconds=1)
    assert (chosen == NOW) == (ahead_us <= -1_000)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (chosen != NOW)
    assert all("this machine's clock says 2026-06-01 12:00:00.123456 UTC" in warning for warning in warnings)


def test_a_row_more_than_an_hour_ahead_refuses_the_run_with_both_times(store: Settings) -> None:
    add_row(store, NOW + timedelta(hours=2))
    with pytest.raises(
        ConflictError, match=r"says 2026-06-01 12:00:00.* of table `product_codes` was created at 2026-06-01 14:00:00"
    ):
        choose_created_timestamp(store, [TABLE], NOW)
    others = {"codebook `x`": NOW + timedelta(days=1)}
    with pytest.raises(ConflictError, match=r"the Redis server's clock says .* of codebook `x`"):
        choose_created_timestamp(store, [], NOW, others=others, clock="the Redis server's clock")


def test_the_repair_of_the_manual_lets_the_next_run_begin(store: Settings) -> None:
    add_row(store, NOW - timedelta(days=1))
    add_row(store, NOW + timedelta(days=300))
    add_row(store, NOW - timedelta(days=2))
    DeltaTable(str(store.table(TABLE))).update(
        predicate=f"created_timestamp > '{NOW:%Y-%m-%dT%H:%M:%SZ}'",
        updates={"created_timestamp": f"'{NOW:%Y-%m-%dT%H:%M:%SZ}'"},
    )
    assert len(delta.read(store.table(TABLE))) == 3
    assert choose_created_timestamp(store, [TABLE], NOW) == NOW


def test_tables_without_rows_statistics_or_created_timestamps_have_no_or_the_right_time(store: Settings) -> None:
    assert find_time_after(store.table("none")) is None
    add_row(store, None)
    assert find_time_after(store.table(TABLE)) is None
    add_row(store, NOW)
    add_row(store, None)
    after = find_time_after(store.table(TABLE))
    assert after is not None
    assert NOW < after <= NOW + timedelta(milliseconds=1)
    delta.append(store.table("other"), pa.table({"x": [1]}))
    assert find_time_after(store.table("other")) is None


def test_a_command_under_a_clock_that_was_set_back_writes_rows_that_win(store: Settings, tmp_path: Path) -> None:
    later = datetime.now(UTC) + timedelta(minutes=30)
    ingest(store, {"product_id": "a", "title": "old"}, now=later)
    products = tmp_path / "products.csv"
    products.write_text(
        "product_id,title,image,category,brand,price,updated_at\na,new,,,,1.5,2026-01-05T00:00:00+00:00\n"
    )
    arguments = ["catalogue", "--products", str(products), "--store", str(store.file)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    rows = delta.read(store.table("product_catalogue")).sort_by("created_timestamp").to_pylist()
    assert rows[-1]["title"] == "new"
    add_row(store, datetime.now(UTC) + timedelta(hours=2), "product_active")
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, ConflictError)
