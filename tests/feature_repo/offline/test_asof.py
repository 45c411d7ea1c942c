"""`feature_repo.offline.asof` compared with a slow, obvious join (tests/oracle.py)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import VitrineError
from feature_repo.offline import asof
from tests.oracle import Version, as_of

START = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = pa.timestamp("us", tz="UTC")
# Few moments and few keys, so that ties and repeats are the rule; steps of one microsecond as well as of days.
moments = st.one_of(st.none(), st.sampled_from([0, 1, 2, 10**6, 86_400 * 10**6, 86_400 * 10**6 + 1])).map(
    lambda step: None if step is None else START + timedelta(microseconds=step)
)
single_keys = st.tuples(st.sampled_from(["a", "b", "", None]))
double_keys = st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, -(2**40), None]))
lifetimes = st.sampled_from([None, timedelta(0), timedelta(microseconds=1), timedelta(days=1)])


def chunked(values: list[Any], type_: pa.DataType, pieces: int = 3) -> pa.ChunkedArray:
    """Values in several chunks, one of them empty."""
    size = max(1, len(values) // pieces)
    chunks = [pa.array(values[start : start + size], type_) for start in range(0, len(values), size)]
    return pa.chunked_array([pa.array([], type_), *chunks], type=type_)


def columns(keys: list[tuple[Any, ...]], types: list[pa.DataType]) -> list[pa.ChunkedArray]:
    return [chunked([key[place] for key in keys], type_) for place, type_ in enumerate(types)]


@st.composite
def cases(draw: st.DrawFn, keys: st.SearchStrategy[tuple[Any, ...]]) -> tuple[list[Version], list[Any], list[Any]]:
    versions = draw(st.lists(st.builds(Version, keys, moments, moments), max_size=25))
    asked = draw(st.lists(st.tuples(keys, moments), max_size=25))
    return versions, [key for key, _ in asked], [at for _, at in asked]


def check(
    case: tuple[list[Version], list[Any], list[Any]],
    types: list[pa.DataType],
    ttl: timedelta | None,
    by_then: bool,
    before: datetime | None,
) -> None:
    versions, keys, at = case
    index = asof.index_versions(
        columns([version.key for version in versions], types),
        chunked([version.event for version in versions], STAMP),
        chunked([version.created for version in versions], STAMP),
        created_before=before,
    )
    found = asof.look_up(index, columns(keys, types), chunked(at, STAMP), ttl=ttl, created_by_then=by_then)
    assert found.tolist() == [
        as_of(versions, key, time, ttl=ttl, created_by_then=by_then, created_before=before)
        for key, time in zip(keys, at, strict=True)
    ]


@settings(max_examples=3 * settings.default.max_examples)
@given(cases(single_keys), lifetimes, st.booleans(), moments)
def test_agrees_with_the_slow_join_on_one_key(
    case: Any, ttl: timedelta | None, by_then: bool, before: datetime | None
) -> None:
    check(case, [pa.string()], ttl, by_then, before)


@settings(max_examples=2 * settings.default.max_examples)
@given(cases(double_keys), lifetimes, st.booleans(), moments)
def test_agrees_with_the_slow_join_on_two_keys(
    case: Any, ttl: timedelta | None, by_then: bool, before: datetime | None
) -> None:
    check(case, [pa.string(), pa.int64()], ttl, by_then, before)


@settings(max_examples=settings.default.max_examples // 2)
@given(cases(st.just(())), lifetimes, st.booleans(), moments)
def test_agrees_with_the_slow_join_without_keys(
    case: Any, ttl: timedelta | None, by_then: bool, before: datetime | None
) -> None:
    check(case, [], ttl, by_then, before)


def test_finds_the_version_of_a_row_in_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asof, "BLOCK_ROWS", 3)
    index = asof.index_versions([chunked(["a", "b"], pa.string())], chunked([START, START], STAMP))
    found = asof.look_up(index, [chunked(list("abcabcab"), pa.string())], chunked([START] * 8, STAMP))
    assert found.tolist() == [0, 1, -1, 0, 1, -1, 0, 1]


def test_skips_versions_created_in_one_night_in_one_step() -> None:
    days = [START + timedelta(days=day) for day in range(1_000)]
    index = asof.index_versions(
        [chunked(["a"] * 1_000, pa.string())], chunked(days, STAMP), chunked([days[-1]] * 999 + [START], STAMP)
    )
    older = asof._older_created_earlier(index)
    assert set(older.tolist()) == {-1}
    found = asof.look_up(
        index, [chunked(["a", "a"], pa.string())], chunked([days[500], days[-1]], STAMP), created_by_then=True
    )
    assert found.tolist() == [-1, 999]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("asked_unit", ["s", "ms", "us", "ns"])
def test_compares_timestamps_of_different_units_exactly(unit: str, asked_unit: str) -> None:
    index = asof.index_versions(
        [chunked(["a"], pa.string())], chunked([START + timedelta(seconds=1)], pa.timestamp(unit, tz="UTC"))
    )
    at = [START, START + timedelta(seconds=1), START + timedelta(seconds=2)]
    found = asof.look_up(
        index,
        [chunked(["a"] * 3, pa.string())],
        chunked(at, pa.timestamp(asked_unit, tz="Asia/Shanghai")),
        ttl=timedelta(seconds=1),
    )
    assert found.tolist() == [-1, 0, 0]


def test_one_nanosecond_earlier_is_earlier() -> None:
    moment = 1_700_000_000_000_000_001
    event = pa.chunked_array([pa.array([moment]).cast(pa.timestamp("ns", tz="UTC"))])
    index = asof.index_versions([], event)
    at = pa.chunked_array([pa.array([moment - 1, moment]).cast(pa.timestamp("ns", tz="UTC"))])
    assert asof.look_up(index, [], at).tolist() == [-1, 0]


def test_timestamps_without_a_zone_are_utc() -> None:
    index = asof.index_versions([], chunked([START.replace(tzinfo=None)], pa.timestamp("us")))
    before = START - timedelta(microseconds=1)
    assert asof.look_up(index, [], chunked([before, START], STAMP)).tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (pa.int32(), pa.int64()),
        (pa.int64(), pa.int32()),
        (pa.int64(), pa.float64()),
        (pa.string(), pa.large_string()),
        (pa.large_string(), pa.string()),
        (pa.string(), pa.dictionary(pa.int8(), pa.string())),
        (pa.dictionary(pa.int32(), pa.string()), pa.string()),
        (pa.date32(), pa.date32()),
        (pa.binary(), pa.binary()),
    ],
)
def test_keys_of_comparable_types_match(stored: pa.DataType, asked: pa.DataType) -> None:
    values: list[Any] = [7, 8]
    if not pa.types.is_integer(stored):
        values = [datetime(2026, 1, 7), datetime(2026, 1, 8)] if pa.types.is_date(stored) else ["7", "8"]
    key = pa.chunked_array([pa.array(values).cast(stored.value_type if hasattr(stored, "value_type") else stored)])
    index = asof.index_versions([key.cast(stored)], chunked([START] * 2, STAMP))
    wanted = pa.chunked_array([pa.array([values[1], None, values[0]]).cast(key.type)])
    found = asof.look_up(index, [wanted.cast(asked)], chunked([START] * 3, STAMP))
    assert found.tolist() == [1, -1, 0]


def test_an_integer_beyond_the_stored_type_matches_nothing() -> None:
    index = asof.index_versions([chunked([7], pa.int32())], chunked([START], STAMP))
    assert asof.look_up(index, [chunked([2**40 + 7], pa.int64())], chunked([START], STAMP)).tolist() == [-1]


def test_a_column_of_nulls_only_matches_nothing() -> None:
    index = asof.index_versions([chunked(["a"], pa.string())], chunked([START], STAMP))
    assert asof.look_up(index, [chunked([None], pa.null())], chunked([START], STAMP)).tolist() == [-1]


def test_text_keys_against_integer_keys_raise_an_error() -> None:
    index = asof.index_versions([chunked([7], pa.int64())], chunked([START], STAMP))
    with pytest.raises(VitrineError, match="type string cannot be compared with one of type int64"):
        asof.look_up(index, [chunked(["7"], pa.string())], chunked([START], STAMP))


@pytest.mark.parametrize("encode", [False, True])
def test_keys_that_look_equal_are_one_key_on_both_sides(encode: bool) -> None:
    stored, asked = (
        chunked(["p1 ", "p1", "cafe\u0301"], pa.string()),
        chunked(["p1", "\ufeffp1", "caf\xe9", "p 1"], pa.string()),
    )
    if encode:
        stored, asked = stored.dictionary_encode(), asked.dictionary_encode()
    times = [chunked([START + timedelta(days=day) for day in days], STAMP) for days in ([0, 1, 0], [0, 2, 2, 2])]
    index = asof.index_versions([stored], times[0], times[0])
    assert asof.look_up(index, [asked], times[1]).tolist() == [0, 1, 2, -1]
