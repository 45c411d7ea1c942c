"""Digests of all rows at once against a slow twin that takes one row, one word, at a time."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.content_hash import content_hash
from producers.catalogue import row_hash

MASK = (1 << 64) - 1
texts = st.lists(st.none() | st.text(max_size=40), max_size=30)


def slowly(value: bytes) -> tuple[int, int]:
    first = second = len(value)
    for start in range(0, len(value), 8):
        first, second = mixed(first, second, int.from_bytes(value[start : start + 8], "little"))
    return finished(first, second)


def mixed(first: int, second: int, word: int) -> tuple[int, int]:
    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    first = turned(first ^ (turned(word * c1, 31) * c2 & MASK), 27)
    first = ((first + second) * 5 + 0x52DCE729) & MASK
    second = turned(second ^ (turned(word * c2, 33) * c1 & MASK), 31)
    return first, ((second + first) * 5 + 0x38495AB5) & MASK


def turned(lane: int, bits: int) -> int:
    lane &= MASK
    return (lane << bits | lane >> (64 - bits)) & MASK


def finished(first: int, second: int) -> tuple[int, int]:
    first = (first + second) & MASK
    second = (second + first) & MASK
    first, second = spread(first), spread(second)
    first = (first + second) & MASK
    return first, (second + first) & MASK


def spread(lane: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        lane = (lane ^ lane >> 33) * factor & MASK
    return lane ^ lane >> 33


def column(values: list[str | None], cut: int) -> pa.ChunkedArray:
    """In two chunks, of which the second is a slice that begins in the midst of its buffers."""
    whole = pa.array(values, pa.string())
    return pa.chunked_array([whole.slice(0, cut), whole.slice(cut)])


@given(texts, st.integers(0, 30))
def test_every_text_has_the_digest_that_the_slow_twin_gives_it(values: list[str | None], cut: int) -> None:
    found = row_hash.hash_texts(column(values, cut))
    for value, digest in zip(values, found.tolist(), strict=True):
        if value is not None:
            assert tuple(digest) == slowly(value.encode())
    assert len({tuple(digest) for digest in found.tolist()}) == len(set(values))


def test_texts_that_differ_in_one_place_or_in_trailing_zeros_alone_differ_in_both_words() -> None:
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
    found = row_hash.hash_texts(pa.chunked_array([pa.array(words)]))
    assert [len(np.unique(found[:, lane])) for lane in (0, 1)] == [len(words)] * 2


@given(texts, texts)
def test_finds_where_each_digest_stands_and_which_are_not_there(
    values: list[str | None], others: list[str | None]
) -> None:
    known = sorted({value for value in values if value is not None})
    made = row_hash.hash_texts(column(known, 3))
    order = row_hash.sort_order(made)
    asked = [value for value in values + others if value is not None]
    found = row_hash.find_positions(row_hash.hash_texts(column(asked, 0)), made[order])
    assert [None if place < 0 else known[order[place]] for place in found] == [
        value if value in known else None for value in asked
    ]


def test_digests_that_share_their_first_word_are_told_apart_by_the_second() -> None:
    made = np.array([[7, 3], [7, 1], [5, 9], [7, 2]], np.uint64)
    order = row_hash.sort_order(made)
    assert made[order].tolist() == [[5, 9], [7, 1], [7, 2], [7, 3]]
    asked = np.array([[7, 3], [7, 4], [7, 1], [5, 9], [8, 1]], np.uint64)
    assert row_hash.find_positions(asked, made[order]).tolist() == [3, -1, 1, 0, -1]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), max_size=20))
def test_equal_digests_stand_in_the_order_of_the_further_numbers(rows: list[tuple[int, int, int]]) -> None:
    made = np.array([[first, second] for first, second, _ in rows], np.uint64).reshape(-1, 2)
    order = row_hash.sort_order(made, np.array([time for *_, time in rows], np.int64))
    assert [rows[row] for row in order] == sorted(rows)


@given(st.lists(st.none() | st.binary(min_size=16, max_size=16), max_size=10), st.integers(0, 10))
def test_digests_come_back_from_arrow_as_they_went(values: list[bytes | None], cut: int) -> None:
    whole = pa.array(values, pa.binary())
    back = row_hash.from_arrow(pa.chunked_array([whole.slice(0, cut), whole.slice(cut)]))
    assert row_hash.to_arrow(back).to_pylist() == [value or b"\0" * 16 for value in values]


def test_a_contents_hash_is_that_of_its_bytes_wherever_they_lie_in_a_column() -> None:
    values = pa.chunked_array([pa.array([b"x", None, b"", b"picture"]).slice(1), pa.array([b"picture"])])
    assert row_hash.hash_contents(values).to_pylist() == [None, content_hash(b""), *[content_hash(b"picture")] * 2]
