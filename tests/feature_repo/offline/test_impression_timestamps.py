"""The times of impressions, in every form that files have them in."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import schema
from feature_repo.offline import validation
from feature_repo.offline.impressions import read_impressions
from feature_repo.table_format import TableFormat
from tests.feature_repo.offline.impression_files import GOOD, NOW, read, reasons, write_impressions


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, validation.NO_TIMESTAMP),
        ("2026-01-02T03:04:05", validation.NAIVE),
        ("2026-01-02", validation.NAIVE),
        ("yesterday", validation.UNPARSABLE),
        ("2026-02-30T00:00:00Z", validation.UNPARSABLE),
        ("2026-01-02T25:00:00Z", validation.UNPARSABLE),
        ("02/01/2026 03:04", validation.UNPARSABLE),
        ("2026/01/02 03:04", validation.NAIVE),
        ("2026-01-10T00:00:00.000001Z", validation.FUTURE),
        ("2026-01-10T00:00:00-01:00", validation.FUTURE),
        ("9999-12-31T23:59:59-12:00", validation.FUTURE),
        ("0000-01-01T00:00:00Z", validation.TOO_EARLY),
        ("0001-01-01T00:00:00+08:00", validation.TOO_EARLY),
    ],
)
def test_refuses_a_missing_naive_unparsable_or_future_timestamp(value: str | None, reason: str, tmp_path: Path) -> None:
    found = read(tmp_path, {"impression_id": "i2", "event_timestamp": value})
    assert reasons(found) == [("i2", "event_timestamp", reason)]
    assert found.refused[0].value == value


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-02T03:04:05Z",
        "2026-01-02 11:04:05+08:00",
        "2026-01-02T11:04:05+0800",
        "2026-01-02 03:04:05.000000 +0000",
        "2026-01-01 22:04:05 -0500",
        "2026-01-02T03:04:05.000000999Z",
        "2026-01-02 03:04:05+00",
        "1767323045",
    ],
)
def test_accepts_a_timestamp_in_any_time_zone(value: str, tmp_path: Path) -> None:
    found = read(tmp_path, {"impression_id": "i2", "event_timestamp": value})
    assert found.table["event_timestamp"].to_pylist()[1] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_converts_a_timestamp_column_of_any_unit_and_zone(unit: str, tmp_path: Path) -> None:
    instant = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    table = pa.Table.from_pylist([GOOD]).drop_columns("event_timestamp")
    column = pa.array([instant], pa.timestamp(unit, tz="Asia/Shanghai"))
    pyarrow.parquet.write_table(table.append_column("event_timestamp", column), tmp_path / "zoned.parquet")
    found = read_impressions(tmp_path / "zoned.parquet", now=NOW)
    assert found.table["event_timestamp"].to_pylist() == [instant]
    assert found.table.schema.field("event_timestamp").type == schema.TIMESTAMP


@pytest.mark.parametrize(
    ("instant", "reason"),
    [(2**62, validation.FUTURE), (-(2**62), validation.TOO_EARLY), (None, validation.NO_TIMESTAMP)],
)
@pytest.mark.parametrize("zone", ["UTC", "Nowhere/Atall"])
def test_refuses_a_timestamp_out_of_range(instant: int | None, reason: str, zone: str, tmp_path: Path) -> None:
    table = pa.Table.from_pylist([GOOD, GOOD | {"impression_id": "i2"}]).drop_columns("event_timestamp")
    column = pa.array([0, instant], pa.timestamp("us", tz=zone))
    pyarrow.parquet.write_table(table.append_column("event_timestamp", column), tmp_path / "far.parquet")
    found = read_impressions(tmp_path / "far.parquet", now=NOW)
    assert reasons(found) == [("i2", "event_timestamp", reason)]
    assert found.refused[0].value == (None if instant is None else str(instant))


@given(st.datetimes(datetime(1900, 1, 1), datetime(2026, 1, 9)), st.integers(-14 * 60, 14 * 60), st.booleans())
def test_reads_every_timestamp_that_python_writes(moment: datetime, minutes: int, spaced: bool) -> None:
    instant = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    table = pa.table({"at": [instant.isoformat(sep=" " if spaced else "T")]})
    values, found = validation.parse_timestamps(table, "at", Path("t.csv"), NOW)
    assert values.to_pylist() == [instant.astimezone(UTC)]
    assert not any(check.bad.any() for check in found)


def test_a_time_zone_names_the_instant_of_naive_times(tmp_path: Path) -> None:
    times = pa.array([datetime(2026, 1, 2, 11, 4, 5)], pa.timestamp("ns"))
    table = pa.Table.from_pylist([GOOD]).drop_columns("event_timestamp").append_column("event_timestamp", times)
    pyarrow.parquet.write_table(table, tmp_path / "naive.parquet")
    shanghai = TableFormat(timezone="Asia/Shanghai")
    for file in (tmp_path / "naive.parquet", write_impressions(tmp_path, {"event_timestamp": "2026/1/2 11:04:05"})):
        found = read_impressions(file, now=NOW, table_format=shanghai)
        assert found.table["event_timestamp"].to_pylist() == [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)]
