"""Hashes of whole columns, compared with an oracle that hashes one value, one word at a time."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.content_hash import content_hash
from producers.catalogue import row_hash

MASK = (1 << 64) - 1
texts = st.lists(st.none() | st.text(max_size=40), max_size=30)


def hash_value(value: bytes) -> tuple[int, int]:
    first = second = len(value)
    for start in range(0, len(value), 8):
        first, second = mix(first, second, int.from_bytes(value[start : start + 8], "little"))
    return finalize(first, second)


def mix(first: int, second: int, word: int) -> tuple[int, int]:
    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    first = rotate_left(first ^ (rotate_left(word * c1, 31) * c2 & MASK), 27)
    first = ((first + second) * 5 + 0x52DCE729) & MASK
    second = rotate_left(second ^ (rotate_left(word * c2, 33) * c1 & MASK), 31)
    return first, ((second + first) * 5 + 0x38495AB5) & MASK


def rotate_left(lane: int, bits: int) -> int:
    lane &= MASK
    return (lane << bits | lane >> (64 - bits)) & MASK


def finalize(first: int, second: int) -> tuple[int, int]:
    first = (first + second) & MASK
    second = (second + first) & MASK
    first, second = avalanche(first), avalanche(second)
    first = (first + second) & MASK
    return first, (second + first) & MASK


def avalanche(lane: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        lane = (lane ^ lane >> 33) * factor & MASK
    return lane ^ lane >> 33


def column(values: list[str | None], cut: int) -> pa.ChunkedArray:
    """Return two chunks; the second starts in the middle of its buffers."""
    whole = pa.array(values, pa.string())
    return pa.chunked_array([whole.slice(0, cut), whole.slice(cut)])


@given(texts, st.integers(0, 30))
def test_every_text_has_the_hash_of_the_oracle(values: list[str | None], cut: int) -> None:
    hashes = row_hash.hash_texts(column(values, cut)).tolist()
    for value, hash_ in zip(values, hashes, strict=True):
        if value is not None:
            assert tuple(hash_) == hash_value(value.encode())
    assert len({tuple(hash_) for hash_ in hashes}) == len(set(values))


def test_texts_that_differ_in_one_byte_or_in_trailing_zeros_differ_in_both_words() -> None:
    words = [
        "",
        "\0",
        "\0" * 8,
        "\0" * 9,
        "a",
        "a\0",
        "ab",
        "ba",
        "a" * 8,
        "a" * 9,
        "a" * 16,
        *map(str, range(100_000)),
    ]
    hashes = row_hash.hash_texts(pa.chunked_array([pa.array(words)]))
    assert [len(np.unique(hashes[:, lane])) for lane in (0, 1)] == [len(words)] * 2


@given(texts, texts)
def test_finds_the_position_of_each_hash_and_minus_one_for_others(
    values: list[str | None], others: list[str | None]
) -> None:
    stored = sorted({value for value in values if value is not None})
    hashes = row_hash.hash_texts(column(stored, 3))
    order = row_hash.sort_order(hashes)
    wanted = [value for value in values + others if value is not None]
    positions = row_hash.find_positions(row_hash.hash_texts(column(wanted, 0)), hashes[order])
    assert [None if position < 0 else stored[order[position]] for position in positions] == [
        value if value in stored else None for value in wanted
    ]


def test_hashes_with_one_first_word_are_distinguished_by_the_second() -> None:
    hashes = np.array([[7, 3], [7, 1], [5, 9], [7, 2]], np.uint64)
    order = row_hash.sort_order(hashes)
    assert hashes[order].tolist() == [[5, 9], [7, 1], [7, 2], [7, 3]]
    wanted = np.array([[7, 3], [7, 4], [7, 1], [5, 9], [8, 1]], np.uint64)
    assert row_hash.find_positions(wanted, hashes[order]).tolist() == [3, -1, 1, 0, -1]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), max_size=20))
def test_equal_hashes_are_sorted_by_the_tie_breakers(rows: list[tuple[int, int, int]]) -> None:
    hashes = np.array([[first, second] for first, second, _ in rows], np.uint64).reshape(-1, 2)
    order = row_hash.sort_order(hashes, np.array([time for *_, time in rows], np.int64))
    assert [rows[row] for row in order] == sorted(rows)


@given(st.lists(st.none() | st.binary(min_size=16, max_size=16), max_size=10), st.integers(0, 10))
def test_hashes_survive_a_round_trip_through_arrow(values: list[bytes | None], cut: int) -> None:
    whole = pa.array(values, pa.binary())
    back = row_hash.from_arrow(pa.chunked_array([whole.slice(0, cut), whole.slice(cut)]))
    assert row_hash.to_arrow(back).to_pylist() == [value or b"\0" * 16 for value in values]


def test_a_content_hash_depends_on_the_bytes_alone() -> None:
    values = pa.chunked_array([pa.array([b"x", None, b"", b"picture"]).slice(1), pa.array([b"picture"])])
    assert row_hash.hash_contents(values).to_pylist() == [None, content_hash(b""), *[content_hash(b"picture")] * 2]
