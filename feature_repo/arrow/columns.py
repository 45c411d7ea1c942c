"""Columns: one feature of n rows, as a NumPy array if it is numeric, else as an Arrow array.

A missing number is marked by `Column.valid`. A missing float is also NaN in the columns that `scatter` and
`make_missing` build; in those of `from_arrow`, a missing single float is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.arrow.field import NUMBERS, TEXTS, Field
from feature_repo.errors import InvalidInputError

_ARROW_NUMBERS = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "unix_timestamp": pa.timestamp("s", tz="UTC"),
}


@dataclass(frozen=True, repr=False)
class Column:
    """The values of one feature in n rows, which ones are missing, and for codes the texts that they stand for."""

    field: Field
    """The feature."""
    values: Any
    """A NumPy array for numbers and dictionary codes [n] and for number lists of one length [n, width]; else an Arrow
    array of n values, null where missing. Timestamps as NumPy values are seconds since 1970 UTC."""
    valid: NDArray[np.bool_] | None = None
    """bool [n]: which rows of NumPy values have a value. None if all have one, and always None with an Arrow array."""
    words: Sequence[str] | None = None
    """The texts that the codes in `values` refer to: code i is words[i]. None if `values` are not codes."""

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Column({self.field.name}, {len(self):,} values)"


def element_type(field: Field) -> pa.DataType:
    """Return the Arrow type of one element of a field, as Feast maps it.

    Text is string, also with the storage "dictionary"; bytes and serialized messages are binary; a unix timestamp is
    timestamp[s, UTC].
    """
    if field.base in NUMBERS:
        return _ARROW_NUMBERS[field.base]
    return pa.string() if field.base in TEXTS else pa.binary()


def arrow_type(field: Field) -> pa.DataType:
    """Return the Arrow type of the values of a field: the type of one element, for lists and sets a list of it."""
    return pa.list_(element_type(field)) if field.is_list else element_type(field)


def from_arrow(field: Field, array: pa.Array | pa.ChunkedArray) -> Column:
    """Convert an Arrow array to the column of a field.

    Timestamps become whole seconds, rounded down. A null inside a list of floats becomes NaN. A missing single number
    is 0 in `Column.values`, also a float; `Column.valid` marks it. Numbers have the NumPy type `field.number`. Number
    lists of one length become a matrix, other lists an Arrow array.

    Args:
        field: the feature.
        array: its values; for a field that is stored as messages, the serialized `Value` messages.

    Raises:
        InvalidInputError: the array's type does not fit the field, an integer field gets a number out of its range or
            with a fraction, a list of other elements than floats contains a null, or a list is not of the field's
            length.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array.type, pa.DictionaryType) and field.storage != "dictionary":
        array = array.dictionary_decode()
    try:
        if field.is_list:
            return _lists_from_arrow(field, array)
        if field.base in NUMBERS:
            valid = np.asarray(array.is_valid()) if array.null_count else None
            return Column(field, _numbers(field, array), valid)
        return Column(field, array if field.storage == "dictionary" else array.cast(element_type(field)))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInputError(
            f"feature `{field.name}` is {field.type}, but its values are {array.type}: {error}"
        ) from error


def _numbers(field: Field, array: pa.Array) -> NDArray[Any]:
    """Return [n] numbers; 0 or False where null."""
    if field.base == "unix_timestamp" and pa.types.is_temporal(array.type):
        array = pc.cast(pc.floor_temporal(array.cast(pa.timestamp("us", tz="UTC")), unit="second"), pa.timestamp("s"))
        array = array.cast(pa.int64())
    target = pa.int64() if field.base == "unix_timestamp" else _ARROW_NUMBERS[field.base]
    if array.type != target:
        array = pc.cast(array, target, safe=field.base not in ("float", "double"))
    if array.null_count:
        array = array.fill_null(False if field.base == "bool" else 0)
    numbers = array.to_numpy(zero_copy_only=False)
    return numbers


def _lists_from_arrow(field: Field, array: pa.Array) -> Column:
    """Convert lists of any elements, as `from_arrow` describes it."""
    sizes = np.asarray(pc.list_value_length(array).fill_null(0)).astype(np.int64)
    valid = np.asarray(array.is_valid()) if array.null_count else None
    items = array.flatten()
    if field.length and (sizes[valid if valid is not None else slice(None)] != field.length).any():
        wrong = next(size for i, size in enumerate(sizes) if size != field.length and (valid is None or valid[i]))
        raise InvalidInputError(
            f"feature `{field.name}`: expected lists of {field.length} elements, got one of {wrong}"
        )
    if items.null_count:
        if field.base not in ("float", "double"):
            raise InvalidInputError(f"feature `{field.name}`: a list of {field.base} contains a null; remove the null")
        items = items.fill_null(float("nan"))
    if field.base not in NUMBERS:
        return Column(field, make_list_array(sizes, items.cast(element_type(field)), valid))
    return make_number_lists(field, _numbers(field, items), sizes, valid)


def make_number_lists(
    field: Field, items: NDArray[Any], sizes: NDArray[np.int64], valid: NDArray[np.bool_] | None
) -> Column:
    """Build a column of number lists from their concatenated elements.

    The values are a matrix if all present lists have one length, else an Arrow list array. If no list is present, the
    matrix has the width `field.length`. The matrix uses the memory of `items` if no list is missing.

    Args:
        field: the feature.
        items: the elements of all present lists, in order; timestamps as seconds.
        sizes: [n] number of elements of each list; 0 where the list is missing.
        valid: [n] which lists are present; None if all are.
    """
    present = sizes if valid is None else sizes[valid]
    width = int(present[0]) if len(present) else field.length
    if (present != width).any():
        if items.dtype == np.bool_ or field.base != "unix_timestamp":
            return Column(field, make_list_array(sizes, pa.array(items, element_type(field)), valid))
        return Column(field, make_list_array(sizes, pa.array(items).cast(element_type(field)), valid))
    matrix = items.reshape(len(present), width)
    return Column(field, matrix) if valid is None else scatter(field, matrix, np.flatnonzero(valid), len(sizes))


def make_list_array(sizes: NDArray[np.int64], items: pa.Array, valid: NDArray[np.bool_] | None) -> pa.Array:
    """Build an Arrow list array of n lists from their concatenated elements, which are not copied.

    There may be at most 2**31 - 1 elements; this is not checked.

    Args:
        sizes: [n] number of elements of each list; 0 where the list is missing.
        items: the elements of all present lists, in order.
        valid: [n] which lists are present; None if all are.
    """
    offsets = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.list_(items.type), len(sizes), [mask, pa.py_buffer(offsets)], children=[items])


def make_missing(field: Field, count: int) -> Column:
    """Return a column of `count` missing values.

    Numbers and number lists: a NumPy array of NaN for floats, else of 0, with `valid` all False; lists have the width
    `field.length`. All else: Arrow nulls.
    """
    if field.base in NUMBERS:
        return scatter(field, np.empty(field.shape(0), field.number), np.empty(0, np.int64), count)
    return Column(field, pa.nulls(count, arrow_type(field)))


def scatter(
    field: Field,
    values: NDArray[Any],
    rows: NDArray[np.int64],
    count: int,
    valid: NDArray[np.bool_] | None = None,
) -> Column:
    """Return a column of `count` rows with `values` at the row numbers `rows` and missing values elsewhere.

    The result is a copy with the dtype of `values`. In rows without a value it holds NaN for floats, else 0. Its
    `valid` is always an array, its `words` is None.

    Args:
        field: a feature of numbers, number lists or dictionary codes.
        values: [m] or [m, width].
        rows: [m] distinct row number of each value, in [0, count), in any order.
        count: number of rows of the result.
        valid: [m] which values are present; None if all are.
    """
    result = np.empty((count, *values.shape[1:]), values.dtype)
    result[...] = np.nan if field.base in ("float", "double") else 0
    result[rows] = values
    result_valid = np.zeros(count, np.bool_)
    result_valid[rows] = True if valid is None else valid
    return Column(field, result, result_valid)


def slice_rows(column: Column, rows: slice) -> Column:
    """Return a range of rows, a slice of step 1, as a column over the same memory; nothing is copied.

    As in Python, a bound beyond the last row is no error.
    """
    values, valid = column.values[rows], None if column.valid is None else column.valid[rows]
    return Column(column.field, values, valid, column.words)


def take(column: Column, rows: NDArray[np.int64]) -> Column:
    """Return a copy of the rows with the numbers `rows`, in that order.

    Args:
        column: n rows.
        rows: [m] row numbers, each in [0, n); may repeat, may be empty.
    """
    if isinstance(column.values, np.ndarray):
        valid = None if column.valid is None else column.valid[rows]
        return Column(column.field, column.values[rows], valid, column.words)
    return Column(column.field, column.values.take(pa.array(rows)))


def merge(field: Field, parts: Sequence[tuple[NDArray[np.int64], Column]], count: int) -> Column:
    """Combine columns of distinct rows into one column of `count` rows.

    Args:
        field: the feature.
        parts: pairs of row numbers [m] and a column of m rows. No row number is in two parts. The parts may differ in
            representation, for example if only some hold lists of one length; parts that hold codes must share their
            `words`.
        count: number of rows of the result; rows in no part are missing, so without parts all are.

    Returns:
        A copy. Its values are an Arrow array if those of a part are, or if present lists differ in length. Otherwise it
        is a column as `make_missing` returns it if no value is present, else one with a NumPy array.
    """
    arrays = [column.values for _, column in parts]
    if all(isinstance(values, np.ndarray) for values in arrays):
        present = [(rows, column) for rows, column in parts if column.valid is None or column.valid.any()]
        if len({column.values.shape[1:] for _, column in present}) <= 1:
            if not present:
                return make_missing(field, count)
            order = np.concatenate([rows for rows, _ in present])
            valid = np.concatenate([np.ones(len(c), np.bool_) if c.valid is None else c.valid for _, c in present])
            result = scatter(field, np.concatenate([c.values for _, c in present]), order, count, valid)
            return replace(result, words=present[0][1].words)
    row_index = np.full(count, -1)
    row_index[np.concatenate([rows for rows, _ in parts])] = np.arange(sum(len(values) for values in arrays))
    joined = pa.concat_arrays([to_arrow(column).cast(arrow_type(field)) for _, column in parts])
    return Column(field, joined.take(pa.array(row_index, mask=row_index < 0)))


def to_numpy(column: Column) -> NDArray[Any]:
    """Convert a column to the NumPy array that suits its type. The result may share memory with the column.

    Returns:
        Floats: [n] as the column holds them: NaN where missing, but 0 if the column comes from `from_arrow`. Other
        numbers: [n], a masked array if any is missing. Number lists of one length: [n, width], NaN where a list of
        floats is missing, else masked. Timestamps: datetime64[s], NaT where missing. All else: an object array [n],
        None where missing.
    """
    values = column.values
    if not isinstance(values, np.ndarray):
        return values.to_numpy(zero_copy_only=False)
    if column.words is not None:
        words = np.array([*column.words, None], object)
        return words[values if column.valid is None else np.where(column.valid, values, len(words) - 1)]
    if column.field.base == "unix_timestamp":
        values = values.astype("datetime64[s]")
        if column.valid is not None:
            values[~column.valid] = np.datetime64("NaT")
        return values
    if column.valid is None or values.dtype.kind == "f":
        return values
    missing = ~column.valid
    return np.ma.MaskedArray(values, np.broadcast_to(missing.reshape(-1, *[1] * (values.ndim - 1)), values.shape))


def to_arrow(column: Column) -> pa.Array:
    """Convert a column of n rows to an Arrow array of n values; null where missing. The two may share memory.

    Returns:
        An array of the type `arrow_type(field)`; dictionary codes become a dictionary array of texts. A column whose
        values are an Arrow array is returned as it is.
    """
    values, valid = column.values, column.valid
    if not isinstance(values, np.ndarray):
        return values
    if column.words is not None:
        codes = numbers_to_arrow(values.astype(np.int32), pa.int32(), valid)
        return pa.DictionaryArray.from_arrays(codes, pa.array(column.words, pa.string()))
    kind = element_type(column.field)
    if values.ndim == 1:
        return numbers_to_arrow(values, kind, valid)
    present = values if valid is None else values[valid]
    sizes = np.full(len(values), values.shape[1]) if valid is None else np.where(valid, values.shape[1], 0)
    return make_list_array(sizes, numbers_to_arrow(present.reshape(-1), kind), valid)


def numbers_to_arrow(values: NDArray[Any], kind: pa.DataType, valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Convert numbers [n] to an Arrow array over the same memory; null where not `valid`.

    Booleans are copied, because NumPy stores a byte each and Arrow a bit; so is an array that is not contiguous.

    Args:
        values: the numbers.
        kind: an Arrow type whose values have as many bits as those of `values`; anything else fails an assertion.
        valid: bool [n], which values are present; None if all are. NaN stays NaN.
    """
    if values.dtype == np.bool_:
        return pa.array(values, kind, mask=None if valid is None else ~valid)
    assert kind.bit_width == 8 * values.itemsize
    mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [mask, pa.py_buffer(np.ascontiguousarray(values))])


def copy_into(column: Column, out: NDArray[Any]) -> Column:
    """Copy a column of floats into the caller's array `out`, NaN where missing, and return the column backed by it.

    Nothing is copied if the column's values already share memory with `out`. Lists of width 0, as in a column without
    any present list, fill `out` of any shape with NaN.

    Args:
        column: its values are a NumPy array of floats, [n] or [n, width].
        out: array of the values' shape and dtype.

    Raises:
        InvalidInputError: the column does not hold floats, or `out` has another shape or dtype.
    """
    values = column.values
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise InvalidInputError(
            f"feature `{column.field.name}` is {column.field.type}: only floats can be written to an array of `out`"
        )
    if np.shares_memory(values, out):
        return column
    if out.dtype != values.dtype or (values.shape != out.shape and values.shape[1:] != (0,)):
        raise InvalidInputError(
            f"out[`{column.field.name}`] is {out.dtype} {list(out.shape)}, expected {values.dtype} {list(values.shape)}"
        )
    out[...] = values if values.shape == out.shape else np.nan
    return replace(column, values=out)
