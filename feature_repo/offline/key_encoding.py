"""Encode join keys of one or more columns as dense integers. Columns may be of any type that can be hashed.

Texts are normalized (feature_repo.arrow.text): ids that look equal are one key, however either table spells them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.arrow import text
from feature_repo.errors import InvalidInputError

Int64 = NDArray[np.int64]

_ODD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio. Multiplication by it spreads neighbouring integers over the upper bits."""


@dataclass(frozen=True)
class KeyDictionary:
    """The distinct keys of a table, numbered in [0, size)."""

    values: tuple[pa.Array, ...]
    """Distinct values of each column without null, in the order in which they first occur."""
    combinations: tuple[Int64, ...]
    """For each column after the first: the sorted codes of the distinct combinations of the columns up to it. A code is
    the number of the combination before times the number of distinct values of this column, plus this value's number.
    """
    size: int
    """Number of distinct keys; 1 without columns."""


def encode(columns: Sequence[pa.ChunkedArray], rows: int) -> tuple[KeyDictionary, Int64]:
    """Number the distinct keys. A key with a null in any column gets no number.

    Keys of one column are numbered in the order in which they first occur. Keys of several columns are sorted by the
    number of the first column's value, then by that of the next column's.

    Args:
        columns: the columns of the key, [rows] each. Without columns, all rows have the key 0.
        rows: number of rows.

    Returns:
        The dictionary, and int64 [rows] key numbers; -1 where a column is null.
    """
    values = tuple(pc.unique(plain_keys(column)).drop_null() for column in columns)
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
    """Look up the numbers of keys in an existing dictionary, which stays as it is.

    Args:
        codes: the dictionary, as `encode` returns it.
        columns: as many columns as the dictionary has, in its order, [rows] each. Types may differ if they can be
            compared: integers and floats of any width, texts of any encoding.
        rows: number of rows.

    Returns:
        int64 [rows] key numbers; -1 where the dictionary lacks the key, or a column is null.

    Raises:
        InvalidInputError: a column cannot be compared with the dictionary's, for example text with integers, or floats
            that have a fraction with integers.
    """
    code = np.zeros(rows, dtype=np.int64)
    for position, (column, distinct) in enumerate(zip(columns, codes.values, strict=True)):
        code = _pair(code, _positions(column, distinct), len(distinct))
        if position:
            code = _position_among(codes.combinations[position - 1], code)
    return code


def assign_partitions(
    columns: Sequence[pa.ChunkedArray], like: Sequence[pa.DataType], rows: int, partitions: int
) -> Int64:
    """Assign each key to one of `partitions` partitions.

    Keys that are equal for `encode_like` are in the same partition, in every process and even if their types differ.

    Args:
        columns: the columns of the key, [rows] each. Without columns, all rows are in partition 0.
        like: for each column, the type of the column that it will be compared with.
        rows: number of rows.
        partitions: number of partitions, at least 1. Some may stay empty.

    Returns:
        int64 [rows] partition in [0, partitions); -1 where a column is null.

    Raises:
        InvalidInputError: a column cannot be compared with its type in `like`.
    """
    mixed = np.zeros(rows, dtype=np.uint64)
    valid = np.ones(rows, dtype=bool)
    for column, type_ in zip(columns, like, strict=True):
        if column.null_count == rows:  # an all-null column may have any type
            return np.full(rows, -1, dtype=np.int64)
        plain = plain_keys(column)
        _comparable(plain, pa.array([], type_.value_type if pa.types.is_dictionary(type_) else type_))
        valid &= plain.is_valid().to_numpy()
        mixed = (mixed ^ _hashes(plain)) * _ODD
    return np.where(valid, ((mixed >> np.uint64(32)) % np.uint64(partitions)).astype(np.int64), -1)


def _hashes(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return uint64 [n] hashes that are equal for equal values of comparable types.

    Numbers are hashed as float64, text and binary by their bytes. All values of other types have the hash 0.
    """
    if _is_number(column.type):
        values = column.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy() + 0.0  # turns -0.0 into 0.0
        return values.view(np.uint64) * _ODD >> np.uint64(17)
    if not (_is_text(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return np.zeros(len(column), dtype=np.uint64)
    distinct = pc.unique(column).drop_null()
    hashes = [crc32(value) for value in distinct.cast(pa.large_binary()).to_pylist()]
    return np.array([*hashes, 0], dtype=np.uint64)[pc.index_in(column, value_set=distinct).fill_null(-1).to_numpy()]


def _pair(left: Int64, right: Int64, right_size: int) -> Int64:
    """Return one number for each pair of numbers; -1 if either is -1. Right numbers must be below `right_size`."""
    return np.where((left < 0) | (right < 0), -1, left * right_size + right)


def _position_among(ascending: Int64, values: Int64) -> Int64:
    """Return the position of each value in an ascending array, from 0; -1 if it is not there."""
    if not len(ascending):
        return np.full(len(values), -1, dtype=np.int64)
    position = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.where(ascending[position] == values, position, -1)


def _positions(column: pa.ChunkedArray, distinct: pa.Array) -> Int64:
    """Return the position of each value in `distinct`, -1 if it is not there."""
    if column.null_count == len(column) or not len(distinct):  # an all-null column may have any type
        return np.full(len(column), -1, dtype=np.int64)
    if pa.types.is_dictionary(column.type):
        return np.concatenate(
            [
                _take(_positions(pa.chunked_array([chunk.dictionary]), distinct), chunk.indices)
                for chunk in column.chunks
            ]
            or [np.empty(0, np.int64)]
        )
    column, distinct = _comparable(plain_keys(column), distinct)
    positions = pc.index_in(column, value_set=distinct, skip_nulls=True)
    return positions.fill_null(-1).to_numpy().astype(np.int64)


def _take(values: Int64, indices: pa.Array) -> Int64:
    """Return `values` at each index; -1 where the index is null."""
    position = indices.fill_null(-1).cast(pa.int64()).to_numpy()
    return np.append(values, -1)[position]


def plain_keys(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of join keys decoded if it is dictionary-encoded, and its texts normalized."""
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return text.normalize_ids(column.cast(pa.string() if pa.types.is_string_view(type_) else type_))


def _comparable(column: pa.ChunkedArray, distinct: pa.Array) -> tuple[pa.ChunkedArray, pa.Array]:
    """Return both sides in one type: integers as int64, else the distinct values cast to the column's type."""
    left, right = column.type, distinct.type
    if left == right:
        return column, distinct
    try:
        if _is_number(left) and pa.types.is_integer(right):  # pandas turns integers with a null into floats
            return column.cast(pa.int64()), distinct.cast(pa.int64())
        if _is_text(left) == _is_text(right) and _is_number(left) == _is_number(right):
            return column, distinct.cast(left)
    except pa.ArrowException as error:
        raise InvalidInputError(
            f"a join key of type {left} cannot be compared with one of type {right}: {error}"
        ) from error
    raise InvalidInputError(
        f"a join key of type {left} cannot be compared with one of type {right}; use one type for both"
    )


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
