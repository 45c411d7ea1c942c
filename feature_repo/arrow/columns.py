"""One feature of n rows: a NumPy array where it is numbers, an Arrow array where it is text or lists that differ.

Missing is never zero: a float that is missing is NaN, and of other numbers `valid` says which are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.arrow.field import NUMBERS, TEXTS, Field
from feature_repo.errors import VitrineError

_ARROW_NUMBERS = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "unix_timestamp": pa.timestamp("s", tz="UTC"),
}


@dataclass(frozen=True)
class Column:
    """One feature of n rows."""

    field: Field
    values: Any
    """NumPy: numbers or codes [n], lists of numbers of one length [n, width]; else an Arrow array of n."""
    valid: NDArray[np.bool_] | None = None
    """[n], for NumPy values: which rows have one; None if all do."""
    words: Sequence[str] | None = None
    """If the values are codes of texts: the texts."""

    def __len__(self) -> int:
        return len(self.values)


def element_type(field: Field) -> pa.DataType:
    """What Arrow calls one element of a field: Feast's own choice, but binary for bytes and for messages."""
    if field.base in NUMBERS:
        return _ARROW_NUMBERS[field.base]
    return pa.string() if field.base in TEXTS else pa.binary()


def arrow_type(field: Field) -> pa.DataType:
    """What Arrow calls a field."""
    return pa.list_(element_type(field)) if field.is_list else element_type(field)


def from_arrow(field: Field, array: pa.Array | pa.ChunkedArray) -> Column:
    """An Arrow array as the column of a field; messages come as the bytes of Feast's `Value`.

    Timestamps become whole seconds, rounded down. A null among the floats of a list becomes NaN.

    Raises:
        VitrineError: the array's type does not fit, a list of other elements contains a null, or a list has another
            length than the field's.
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
        raise VitrineError(f"feature `{field.name}` is {field.type}, but came as {array.type}: {error}") from error


def _numbers(field: Field, array: pa.Array) -> NDArray[Any]:
    """[n]; zeros where null."""
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
    sizes = np.asarray(pc.list_value_length(array).fill_null(0)).astype(np.int64)
    valid = np.asarray(array.is_valid()) if array.null_count else None
    items = array.flatten()
    if field.length and (sizes[valid if valid is not None else slice(None)] != field.length).any():
        wrong = next(size for i, size in enumerate(sizes) if size != field.length and (valid is None or valid[i]))
        raise VitrineError(f"feature `{field.name}`: a list of {wrong} elements came, its Field says {field.length}")
    if items.null_count:
        if field.base not in ("float", "double"):
            raise VitrineError(f"feature `{field.name}`: a list of {field.base} contains a null; leave it out")
        items = items.fill_null(float("nan"))
    if field.base not in NUMBERS:
        return Column(field, make_list_array(sizes, items.cast(element_type(field)), valid))
    return make_number_lists(field, _numbers(field, items), sizes, valid)


def make_number_lists(
    field: Field, items: NDArray[Any], sizes: NDArray[np.int64], valid: NDArray[np.bool_] | None
) -> Column:
    """A column of lists from their elements laid end to end: a matrix if all that are there have one length.

    Args:
        items: the elements of all lists, those of missing ones left out.
        sizes: [n], elements of each list; 0 where missing.
        valid: [n], which lists are there; None if all.
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
    """An Arrow list array; a missing list has size 0."""
    offsets = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.list_(items.type), len(sizes), [mask, pa.py_buffer(offsets)], children=[items])


def make_missing(field: Field, count: int) -> Column:
    """A column of which nothing is there."""
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
    """Numbers that are there for `rows` alone, as a column of `count` rows.

    Args:
        values: [m] or [m, width], of the rows `rows` [m].
        valid: [m], which of them are there; None if all.
    """
    whole = np.empty((count, *values.shape[1:]), values.dtype)
    whole[...] = np.nan if field.base in ("float", "double") else 0
    whole[rows] = values
    there = np.zeros(count, np.bool_)
    there[rows] = True if valid is None else valid
    return Column(field, whole, there)


def slice_rows(column: Column, rows: slice) -> Column:
    """The column of a range of rows, not copied."""
    values, valid = column.values[rows], None if column.valid is None else column.valid[rows]
    return Column(column.field, values, valid, column.words)


def take(column: Column, rows: NDArray[np.int64]) -> Column:
    """The column of the rows `rows`, which may repeat."""
    if isinstance(column.values, np.ndarray):
        valid = None if column.valid is None else column.valid[rows]
        return Column(column.field, column.values[rows], valid, column.words)
    return Column(column.field, column.values.take(pa.array(rows)))


def merge(field: Field, parts: Sequence[tuple[NDArray[np.int64], Column]], count: int) -> Column:
    """A column of `count` rows from parts that each hold some of them: (rows, their column)."""
    arrays = [column.values for _, column in parts]
    if all(isinstance(values, np.ndarray) for values in arrays):
        filled = [(rows, column) for rows, column in parts if column.valid is None or column.valid.any()]
        if len({column.values.shape[1:] for _, column in filled}) <= 1:
            if not filled:
                return make_missing(field, count)
            order = np.concatenate([rows for rows, _ in filled])
            valid = np.concatenate([np.ones(len(c), np.bool_) if c.valid is None else c.valid for _, c in filled])
            whole = scatter(field, np.concatenate([c.values for _, c in filled]), order, count, valid)
            return replace(whole, words=filled[0][1].words)
    place = np.full(count, -1)
    place[np.concatenate([rows for rows, _ in parts])] = np.arange(sum(len(values) for values in arrays))
    joined = pa.concat_arrays([_one_type(to_arrow(column), arrow_type(field)) for _, column in parts])
    return Column(field, joined.take(pa.array(place, mask=place < 0)))


def _one_type(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    return array if array.type == wanted else array.cast(wanted)


def to_numpy(column: Column) -> NDArray[Any]:
    """The column as NumPy holds it best.

    Floats [n], NaN where missing; other numbers [n], a masked array where some are missing; lists of numbers of one
    length [n, width], likewise; timestamps datetime64[s]; all else an object array, None where missing.
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
    """The column as an Arrow array of `arrow_type`, or dictionary-encoded text; null where missing."""
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
    """Numbers [n], which are as Arrow's `kind` has them, without a copy; null where not `valid`."""
    if values.dtype == np.bool_:  # a byte each, of which Arrow makes a bit
        return pa.array(values, kind, mask=None if valid is None else ~valid)
    assert kind.bit_width == 8 * values.itemsize
    mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [mask, pa.py_buffer(np.ascontiguousarray(values))])


def copy_into(column: Column, out: NDArray[Any]) -> Column:
    """The column in the caller's array; NaN where it is missing.

    Raises:
        VitrineError: the column is not of floats, or the array has another shape or dtype.
    """
    values = column.values
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise VitrineError(
            f"feature `{column.field.name}` is {column.field.type}: only floats go into an array of `out`"
        )
    if np.shares_memory(values, out):
        return column
    if out.dtype != values.dtype or (values.shape != out.shape and values.shape[1:] != (0,)):
        raise VitrineError(
            f"out[`{column.field.name}`] is {out.dtype} {list(out.shape)}, wanted {values.dtype} {list(values.shape)}"
        )
    out[...] = values if values.shape == out.shape else np.nan
    return replace(column, values=out)
