"""Join keys as dense integers: keys of one or more columns, of any type that can be hashed."""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.errors import VitrineError

Int64 = npt.NDArray[np.int64]

_ODD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio: multiplied by it, neighbouring numbers differ in their upper bits."""


@dataclass(frozen=True)
class KeyDictionary:
    """The dictionary of a join key: `size` keys, each an integer in [0, size)."""

    values: tuple[pa.Array, ...]
    """The distinct values of each column."""
    combinations: tuple[Int64, ...]
    """Of each column after the first: the distinct combinations of the columns so far, sorted."""
    size: int


def encode(columns: Sequence[pa.ChunkedArray], rows: int) -> tuple[KeyDictionary, Int64]:
    """Give each distinct key a number; returns the dictionary and [rows] numbers, -1 where a column is null.

    Without columns all rows have the one key 0.
    """
    values = tuple(pc.unique(_plain(column)).drop_null() for column in columns)
    combinations: list[Int64] = []
    code = np.zeros(rows, dtype=np.int64)
    size = 1
    for position, (column, distinct) in enumerate(zip(columns, values, strict=True)):
        code = _pair(code, _positions(column, distinct), len(distinct))
        if position == 0:
            size = len(distinct)
            continue
        together = np.unique(code[code >= 0])
        code = _position_among(together, code)
        combinations.append(together)
        size = len(together)
    return KeyDictionary(values, tuple(combinations), size), code


def encode_like(codes: KeyDictionary, columns: Sequence[pa.ChunkedArray], rows: int) -> Int64:
    """[rows] numbers of keys by an existing dictionary; -1 where it has no such key, or a column is null.

    Raises:
        VitrineError: a column is of another kind than the dictionary's, such as text for integers.
    """
    code = np.zeros(rows, dtype=np.int64)
    for position, (column, distinct) in enumerate(zip(columns, codes.values, strict=True)):
        code = _pair(code, _positions(column, distinct), len(distinct))
        if position:
            code = _position_among(codes.combinations[position - 1], code)
    return code


def assign_partitions(columns: Sequence[pa.ChunkedArray], like: Sequence[pa.DataType], rows: int, parts: int) -> Int64:
    """[rows] which of `parts` parts each key belongs to, -1 where a column is null.

    Keys that `encode_like` takes for the same are in one part, whatever their types, in every process.

    Args:
        like: the types of the columns that they are to be compared with.

    Raises:
        VitrineError: a column cannot be compared with its type, as in `encode_like`.
    """
    mixed = np.zeros(rows, dtype=np.uint64)
    there = np.ones(rows, dtype=bool)
    for column, type_ in zip(columns, like, strict=True):
        if column.null_count == rows:  # of any type
            return np.full(rows, -1, dtype=np.int64)
        plain = _plain(column)
        _comparable(plain, pa.array([], type_.value_type if pa.types.is_dictionary(type_) else type_))
        there &= plain.is_valid().to_numpy()
        mixed = (mixed ^ _hashes(plain)) * _ODD
    return np.where(there, ((mixed >> np.uint64(32)) % np.uint64(parts)).astype(np.int64), -1)


def _hashes(column: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """[rows] equal for equal values of comparable types: of numbers as floats, of texts' bytes; 0 for other types."""
    if _is_number(column.type):
        values = column.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy() + 0.0  # -0.0 is 0.0
        return values.view(np.uint64) * _ODD >> np.uint64(17)
    if not (_is_text(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return np.zeros(len(column), dtype=np.uint64)
    distinct = pc.unique(column).drop_null()
    hashes = [crc32(value) for value in distinct.cast(pa.large_binary()).to_pylist()]
    return np.array([*hashes, 0], dtype=np.uint64)[pc.index_in(column, value_set=distinct).fill_null(-1).to_numpy()]


def _pair(left: Int64, right: Int64, right_size: int) -> Int64:
    return np.where((left < 0) | (right < 0), -1, left * right_size + right)


def _position_among(ascending: Int64, values: Int64) -> Int64:
    if not len(ascending):
        return np.full(len(values), -1, dtype=np.int64)
    position = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.where(ascending[position] == values, position, -1)


def _positions(column: pa.ChunkedArray, distinct: pa.Array) -> Int64:
    """Where each value stands in `distinct`, -1 if it does not."""
    if column.null_count == len(column) or not len(distinct):  # whatever the types: a column without a value has any
        return np.full(len(column), -1, dtype=np.int64)
    if pa.types.is_dictionary(column.type):
        return np.concatenate(
            [
                _take(_positions(pa.chunked_array([chunk.dictionary]), distinct), chunk.indices)
                for chunk in column.chunks
            ]
            or [np.empty(0, np.int64)]
        )
    column, distinct = _comparable(column, distinct)
    found = pc.index_in(column, value_set=distinct, skip_nulls=True)
    return found.fill_null(-1).to_numpy().astype(np.int64)


def _take(values: Int64, indices: pa.Array) -> Int64:
    position = indices.fill_null(-1).cast(pa.int64()).to_numpy()
    return np.append(values, -1)[position]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _comparable(column: pa.ChunkedArray, distinct: pa.Array) -> tuple[pa.ChunkedArray, pa.Array]:
    """Both sides in one type: the narrower integer widened, the small side cast to the other's kind of text."""
    asked, had = column.type, distinct.type
    if asked == had:
        return column, distinct
    try:
        if _is_number(asked) and pa.types.is_integer(had):  # pandas makes floats of integers with a null
            return column.cast(pa.int64()), distinct.cast(pa.int64())
        if _is_text(asked) == _is_text(had) and _is_number(asked) == _is_number(had):
            return column, distinct.cast(asked)
    except pa.ArrowException as error:
        raise VitrineError(f"a join key of type {asked} cannot be compared with one of type {had}: {error}") from error
    raise VitrineError(f"a join key of type {asked} cannot be compared with one of type {had}; give both one type")


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
