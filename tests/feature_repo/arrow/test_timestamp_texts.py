"""Timestamps as databases, spreadsheets and programs write them, against Python's own calendar."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.arrow import timestamp_texts
from feature_repo.errors import UsageError

INSTANT = datetime(2026, 11, 2, 10, 5, tzinfo=UTC)


def read_one(text: str | None, zone: str | None = None) -> tuple[datetime | None, bool, bool]:
    """Return the instant of one text, whether it lacks an offset, and whether it cannot be read."""
    found = timestamp_texts.read_texts(pa.chunked_array([["2026-01-01T00:00:00Z", text]]), zone)
    return found.values.to_pylist()[1], bool(found.naive[1]), bool(found.unparsable[1])


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-02 10:05:00+00",
        "2026-11-02 18:05:00+08",
        "2026-11-02 10:05:00 UTC",
        "2026-11-02 10:05:00.0 GMT",
        "2026-11-02 15:35:00 +0530",
        "2026-11-02 10:05:00 +0000 UTC",
        "2026/11/2 18:05:00+08:00",
        "2026-11-02T10:05Z",
        "2026-11-02t10:05:00,000z",
        " 2026-11-02T10:05:00Z\t",
        "1793613900",
        "1793613900.000",
        "1793613900000",
        "1793613900000000",
        "1793613900000000000",
    ],
)
def test_reads_one_instant_in_every_form(text: str) -> None:
    assert read_one(text) == (INSTANT, False, False)


@pytest.mark.parametrize("text", ["2026/11/02 10:05", "2026-11-02 10:05:00", "2026-11-02", "2026/11/2 9:05:00.5"])
def test_a_text_without_an_offset_needs_a_time_zone(text: str) -> None:
    assert read_one(text) == (None, True, False)
    local = {"2026-11-02": (0, 0, 0), "2026/11/2 9:05:00.5": (9, 5, 500_000)}.get(text, (10, 5, 0))
    hour, minute, microsecond = local
    wanted = datetime(2026, 11, 2, hour, minute, 0, microsecond, ZoneInfo("Asia/Shanghai")).astimezone(UTC)
    assert read_one(text, "Asia/Shanghai") == read_one(text, "+08:00") == (wanted, False, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02/11/2026 10:05",
        "2026-02-29 10:05:00Z",
        "2026-11-31",
        "2026-11-02 24:00:00Z",
        "2026-11-02T10:05:00+25",
        "2026-11-02T10:05.5Z",
        "2026-11-02 10:05:00 CST",
        "20261102",
        "99999999999",
        "9999999999999999999",
        "-1793613900",
        "1793613900 s",
    ],
)
def test_what_could_mean_two_things_or_nothing_is_not_read(text: str) -> None:
    assert read_one(text) == read_one(text, "UTC") == (None, False, True)


def test_null_is_neither_naive_nor_unparsable() -> None:
    assert read_one(None) == (None, False, False)


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from("T "),
    st.sampled_from("-/"),
    st.booleans(),
)
def test_reads_what_python_writes(moment: datetime, minutes: int, separator: str, joint: str, spaced: bool) -> None:
    instant = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = instant.isoformat(sep=separator)
    date, offset = text[:10].replace("-", joint), text[-6:]
    assert read_one(date + text[10:-6] + " " * spaced + offset)[0] == instant.astimezone(UTC)
    assert read_one(date + text[10:-6], "Europe/Berlin")[1:] == (False, False)


@given(st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1)))
def test_a_date_is_read_exactly_if_the_calendar_has_it(moment: datetime) -> None:
    for day in (1, moment.day, 28, 29, 30, 31, 32):
        text = f"{moment:%Y-%m}-{day:02}"
        try:
            wanted = datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError:
            wanted = None
        assert read_one(text, "UTC")[0] == wanted


@given(st.integers(10**15, 4 * 10**15))
def test_numbers_of_any_unit_are_the_same_instant(microseconds: int) -> None:
    wanted = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    assert read_one(f"{microseconds // 10**6}.{microseconds % 10**6:06}")[0] == wanted
    for number in (microseconds, microseconds * 1000):
        assert timestamp_texts.read_numbers(pa.chunked_array([[number]])).values.to_pylist() == [wanted]


def test_floats_are_seconds_with_decimals_and_nan_cannot_be_read() -> None:
    found = timestamp_texts.read_numbers(pa.chunked_array([[1793613900.5, None, float("nan"), 1e300, 12.0]]))
    assert found.values.to_pylist() == [INSTANT + timedelta(seconds=0.5), None, None, None, None]
    assert found.unparsable.tolist() == [False, False, True, True, True]


def test_an_hour_that_occurs_twice_is_the_first_and_a_skipped_time_is_the_end_of_the_gap() -> None:
    assert read_one("2026-10-25 02:30:00", "Europe/Berlin")[0] == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert read_one("2026-03-29 02:30:00", "Europe/Berlin")[0] == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize("zone", ["Nowhere/City", "", "CST8"])
def test_an_unknown_time_zone_is_one_line(zone: str) -> None:
    with pytest.raises(UsageError, match=r"time zone .* is not known; write it as Asia/Shanghai"):
        timestamp_texts.check_timezone(zone)
