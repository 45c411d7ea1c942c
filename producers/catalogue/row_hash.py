"""128-bit digests of columns and rows, without an object per value.

`of_texts` is a mixing function in the manner of MurmurHash3, computed for all rows at once, a word of eight bytes at a
time: a hash object a row takes six times as long. It only ever compares a product with what it was before, and
finds the row of a product's id, of which some two among 10^8 share one with probability 10^-23. Who crafts a
collision hides a change of his own product from himself.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.content_hash import BYTES, content_hash

Digests = NDArray[np.uint64]
"""[rows, 2]."""

BINARY = pa.binary()
BLOCK_ROWS = 16_384
"""Rows mixed at a time: the arrays of one block stay in the processor's cache."""

_C1, _C2 = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)
_F1, _F2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_FIVE, _ADD1, _ADD2 = np.uint64(5), np.uint64(0x52DCE729), np.uint64(0x38495AB5)
_KEEP = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
"""The first `count` bytes of a little-endian word."""
_NULL = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03))
"""Of a null, which differs from every text."""


def of_each(values: pa.ChunkedArray) -> pa.Array:
    """The `content_hash` of each text or binary value, null where it is null: here there is an object per value."""
    found: list[bytes | None] = []
    for chunk in values.chunks:
        valid, (offsets, data) = chunk.is_valid().to_numpy(zero_copy_only=False), _layout(chunk)
        whole = memoryview(data.data)
        found += [
            content_hash(whole[start:end]) if there else None
            for there, start, end in zip(valid.tolist(), offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        ]
    return pa.array(found, BINARY)


def of_texts(values: pa.ChunkedArray) -> Digests:
    """A digest of each text or binary value; the same for each null, and none that a value has."""
    parts = [np.empty((0, 2), np.uint64)]
    for chunk in values.chunks:
        offsets, data = _layout(chunk)
        padded = np.zeros(int(offsets[-1]) + 8, np.uint8)
        padded[: len(data)] = data
        # A word begins at every byte.
        words = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))
        made = np.empty((len(chunk), 2), np.uint64)
        for start in range(0, len(chunk), BLOCK_ROWS):
            block = slice(start, min(start + BLOCK_ROWS, len(chunk)))
            made[block] = _mixed_words(words, offsets[block], np.diff(offsets[start : block.stop + 1]))
        made[chunk.is_null().to_numpy(zero_copy_only=False)] = _NULL
        parts.append(made)
    return np.concatenate(parts)


def of_numbers(values: NDArray[np.int64]) -> Digests:
    """A digest of each number [rows]."""
    word = values.view(np.uint64)
    return _finished(*_mixed(np.zeros(len(word), np.uint64), np.zeros(len(word), np.uint64), word))


def of_rows(columns: Sequence[Digests]) -> Digests:
    """A digest of each row of some columns, which depends on their order."""
    first = second = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        for lane in (0, 1):
            first, second = _mixed(first, second, column[:, lane])
    return _finished(first, second)


def to_arrow(digests: Digests) -> pa.Array:
    """As binary values of 16 bytes."""
    offsets = pa.py_buffer(np.arange(len(digests) + 1, dtype=np.int32) * BYTES)
    data = pa.py_buffer(np.ascontiguousarray(digests.astype("<u8")))
    return pa.Array.from_buffers(BINARY, len(digests), [None, offsets, data])


def from_arrow(values: pa.ChunkedArray) -> Digests:
    """From binary values of 16 bytes; zeros where there is none."""
    parts = [np.empty((0, 2), np.uint64)]
    for chunk in values.chunks:
        there = chunk.drop_null()
        made = np.zeros((len(chunk), 2), np.uint64)
        if len(there):
            _, data = _layout(there)
            made[chunk.is_valid().to_numpy(zero_copy_only=False)] = data.copy().view("<u8").reshape(-1, 2)
        parts.append(made)
    return np.concatenate(parts)


def order_of(digests: Digests, *then: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order by digest, and among equals by the further numbers, the last of them counting least.

    One sort by the first word, then another of the few rows that share it: a sort by all keys takes six times as long.
    """
    order = np.argsort(digests[:, 0], kind="stable")
    equal = digests[order[1:], 0] == digests[order[:-1], 0]
    if equal.any():
        shared = np.zeros(len(order), bool)
        shared[1:] |= equal
        shared[:-1] |= equal
        rows = order[shared]
        keys = (*(column[rows] for column in reversed(then)), digests[rows, 1], digests[rows, 0])
        order[shared] = rows[np.lexsort(keys)]
    return order


def lasts_of(digests: Digests, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in `order` each digest stands last."""
    if not len(order):
        return order
    here, after = digests[order[:-1]], digests[order[1:]]
    return np.append(np.flatnonzero((here != after).any(axis=1)), len(order) - 1)


def find(asked: Digests, ascending: Digests) -> NDArray[np.int64]:
    """Where each digest stands among distinct ones in the order of `order_of`; -1 where it does not."""
    if not len(ascending):
        return np.full(len(asked), -1, np.int64)
    # Searching in order is quicker than at random, by more than the sort takes: it stays in the cache.
    order = np.argsort(asked[:, 0], kind="stable")
    place = np.empty(len(asked), np.int64)
    place[order] = np.searchsorted(ascending[:, 0], asked[order, 0])
    while True:
        inside = np.minimum(place, len(ascending) - 1)
        first = (place < len(ascending)) & (ascending[inside, 0] == asked[:, 0])
        both = first & (ascending[inside, 1] == asked[:, 1])
        if not (first & ~both).any():
            return np.where(both, place, -1)
        place = place + (first & ~both)


def _layout(chunk: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where each value begins and ends [rows + 1], and all their bytes."""
    large = pa.types.is_large_string(chunk.type) or pa.types.is_large_binary(chunk.type)
    _, offsets, data = chunk.buffers()
    if not len(chunk) or offsets is None:
        return np.zeros(len(chunk) + 1, np.int64), np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int64 if large else np.int32)
    ends = ends[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    bytes_ = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return ends - ends[0], bytes_[int(ends[0]) : int(ends[-1])]


def _mixed_words(words: Digests, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Digests:
    """[rows, 2]; a row's bytes are taken as words, the last filled up with zeros."""
    order = np.argsort(-lengths, kind="stable")
    starts, left = starts[order], lengths[order]
    first = left.astype(np.uint64)
    second = first.copy()
    for place in range(0, int(left[0]) if len(left) else 0, 8):
        live = int(np.searchsorted(-left, -place))  # those longer than what has been mixed
        word = words[starts[:live] + place] & _KEEP[np.minimum(left[:live] - place, 8)]
        first[:live], second[:live] = _mixed(first[:live], second[:live], word)
    mixed = np.empty((len(order), 2), np.uint64)
    mixed[order] = _finished(first, second)
    return mixed


def _mixed(first: Digests, second: Digests, word: Digests) -> tuple[Digests, Digests]:
    first = _turned(first ^ (_turned(word * _C1, 31) * _C2), 27)
    first = (first + second) * _FIVE + _ADD1
    second = _turned(second ^ (_turned(word * _C2, 33) * _C1), 31)
    return first, (second + first) * _FIVE + _ADD2


def _finished(first: Digests, second: Digests) -> Digests:
    first = first + second
    second = second + first
    first, second = (_spread(lane) for lane in (first, second))
    first = first + second
    return np.stack([first, second + first], axis=1)


def _spread(lane: Digests) -> Digests:
    for factor in (_F1, _F2):
        lane = (lane ^ (lane >> np.uint64(33))) * factor
    return lane ^ (lane >> np.uint64(33))


def _turned(lane: Digests, bits: int) -> Digests:
    return (lane << np.uint64(bits)) | (lane >> np.uint64(64 - bits))
