"""Durations and timestamps on command lines."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.durations import EARLIEST, LATEST, LONGEST, format_duration, parse_duration, parse_timestamp
from feature_repo.errors import VitrineError


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90m", timedelta(minutes=90)),
        ("6h", timedelta(hours=6)),
        ("2d", timedelta(days=2)),
        ("45s", timedelta(seconds=45)),
        (" 1.5d ", timedelta(hours=36)),
    ],
)
def test_parses_a_number_and_a_unit(text: str, age: timedelta) -> None:
    assert parse_duration(text) == age


@pytest.mark.parametrize(
    "text",
    ["", "2", "d", "two days", "-1d", "0h", "1w", "1d 2h", "1e9d", "nan", "9" * 400 + "d", "0.0000001s", "36501d"],
)
def test_an_invalid_duration_raises_an_error_with_examples(text: str) -> None:
    with pytest.raises(VitrineError, match=r"not a duration.*90m, 6h"):
        parse_duration(text)


def test_parses_a_timestamp_with_an_offset_and_returns_utc() -> None:
    assert parse_timestamp("2026-03-01T12:00Z") == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert parse_timestamp("2026-03-01T12:00:00+08:00") == datetime(2026, 3, 1, 4, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-03-01T12:00", "2026-03-01"])
def test_a_timestamp_without_an_offset_raises_an_error(text: str) -> None:
    with pytest.raises(VitrineError, match=r"without an offset from UTC.*append Z"):
        parse_timestamp(text)


@pytest.mark.parametrize("text", ["yesterday", "0001-01-01T00:00+08:00", "1969-12-31T23:59Z", "9999-12-31T23:59-08:00"])
def test_an_invalid_or_out_of_range_timestamp_raises_an_error(text: str) -> None:
    with pytest.raises(VitrineError, match=r"not a timestamp|timestamp out of range"):
        parse_timestamp(text)


def test_a_timestamp_minus_two_durations_stays_in_the_calendar() -> None:
    for moment in (EARLIEST, LATEST):
        assert moment - 2 * LONGEST < moment < moment + 2 * LONGEST


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(days=2, hours=3, minutes=59), "2d 3h"),
        (timedelta(days=2), "2d"),
        (timedelta(hours=3, minutes=20), "3h 20m"),
        (timedelta(days=1, minutes=5), "1d"),
        (timedelta(seconds=45), "45s"),
        (timedelta(0), "0s"),
    ],
)
def test_formats_a_duration_in_its_two_largest_units(age: timedelta, words: str) -> None:
    assert format_duration(age) == words


@given(st.integers(1, 10_000), st.sampled_from("smhd"))
def test_a_formatted_duration_parses_back_to_itself(number: int, unit: str) -> None:
    age = parse_duration(f"{number}{unit}")
    parts = [parse_duration(part) for part in format_duration(age).split()]
    assert timedelta(0) <= age - sum(parts, timedelta(0)) < age
    assert format_duration(timedelta(0)) == "0s"
