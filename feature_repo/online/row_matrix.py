"""Packed rows of one layout (layout.py draws them), and each of their fields as a column.

The rows are one matrix of bytes: a fixed field is a strided view, and so is a varying one that begins at the same byte
and is as long in all rows. Nothing that comes out shares memory with the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.online import quantization
from feature_repo.online.encode import Dictionaries
from feature_repo.online.row_format import HEADER_SIZE, Layout

Ints = NDArray[np.int64]
_Each = int | Ints
"""A number of each row [m]; one where all rows have the same."""
_UINT32 = np.dtype("<u4")
_TIME = np.dtype("<i8")
_SHORT = 32
"""Bytes up to which a mask cuts out a field of all rows sooner than a slice of each row does."""


@dataclass(frozen=True)
class RowMatrix:
    """Rows of one layout that are fit to be read."""

    rows: Sequence[bytes]
    matrix: NDArray[np.uint8]
    """[m, width], the rows, zeros after the end of each."""
    layout: Layout

    @cached_property
    def times(self) -> Ints:
        """[m], event timestamps."""
        return read_event_timestamps(self.matrix).copy()

    @cached_property
    def codes(self) -> NDArray[np.uint16]:
        """[fields, m], of the layout's fields that are codes of texts; zero where null."""
        fields = self.layout.codes
        at = self.layout.offset[fields[0].name] if fields else 0
        return _side_by_side(self.matrix, at, len(fields), np.dtype("<u2"))

    def column(self, wanted: Field, words: Dictionaries, out: NDArray[Any] | None = None) -> Column:
        """The field `wanted`, empty if the layout has none of that type.

        Args:
            words: dictionaries of the features with storage "dictionary".
            out: takes the values of floats, if it fits.
        """
        field = self.layout.fields_by_name.get(wanted.name)
        if field is None or field.type != wanted.type:
            return columns.empty(wanted, len(self.rows))
        valid = self._valid(field)
        form, at = field.form, self.layout.offset[field.name]
        if form in ("number", "vector"):
            values = _numbers(field, self.matrix[:, at : at + field.size], out)
            if form == "number":
                values = values[:, 0]
            if valid is not None and values.dtype.kind == "f":
                values[~valid] = np.nan
            return Column(wanted, values, valid)
        if form == "code":
            place = self.layout.position
            codes = self.codes[place[field.name] - place[self.layout.codes[0].name]]
            return Column(wanted, codes, valid, words[field.name])
        if form == "list":
            return self._lists(field, wanted, valid)
        starts, _, sizes = self._extents[field.name]
        data, lengths = self._cut_out(starts, sizes), np.broadcast_to(sizes, len(self.rows))
        if form == "bytes":
            return Column(wanted, _texts(data, lengths, valid, columns.element_type(field)))
        return Column(wanted, _lists_of_texts(data, lengths, valid, field))

    @cached_property
    def _complete(self) -> bool:
        """Whether no row lacks a field."""
        return not self.matrix[:, HEADER_SIZE : HEADER_SIZE + self.layout.mask_size].any()

    def _valid(self, field: Field) -> NDArray[np.bool_] | None:
        """[m], which rows have the field; None if all do."""
        if self._complete:
            return None
        missing = read_null_bits(self.matrix, self.layout.position[field.name])
        return ~missing if missing.any() else None

    @cached_property
    def _extents(self) -> dict[str, tuple[_Each, _Each, _Each]]:
        """Of each varying field, where it begins in each row, its elements, its bytes."""
        fields = (*self.layout.lists, *self.layout.texts)
        at = self.layout.offset[fields[0].name]
        stated = _side_by_side(self.matrix, at, len(fields), _UINT32).astype(np.int64)
        alike = (stated == stated[:, :1]).all(axis=1).tolist()
        starts: _Each = self.layout.prefix_size
        found = {}
        for field, of_field, same in zip(fields, stated, alike, strict=True):
            counts: _Each = int(of_field[0]) if same else of_field
            sizes = counts
            if field.form == "list":
                sizes = counts * field.stored.itemsize + (counts > 0) * field.scale_size
            found[field.name] = starts, counts, sizes
            starts = starts + sizes
        return found

    def _cut_out(self, starts: _Each, sizes: _Each) -> bytes:
        """The bytes of one field, row after row."""
        if isinstance(starts, int):
            longest = sizes if isinstance(sizes, int) else int(sizes.max())
            block = self.matrix[:, starts : starts + longest]
            if isinstance(sizes, int):
                return block.tobytes()
            if longest <= _SHORT:
                return block.reshape(-1)[(np.arange(longest) < sizes[:, None]).reshape(-1)].tobytes()
        begins = np.broadcast_to(starts, len(self.rows))
        ends = begins + sizes
        return b"".join([row[i:j] for row, i, j in zip(self.rows, begins.tolist(), ends.tolist(), strict=True)])

    def _lists(self, field: Field, wanted: Field, valid: NDArray[np.bool_] | None) -> Column:
        """A varying list of numbers: a matrix where all that are there have one length."""
        starts, counts, sizes = self._extents[field.name]
        if valid is None and isinstance(starts, int) and isinstance(counts, int) and isinstance(sizes, int):
            if not counts:
                return Column(wanted, np.empty((len(self.rows), 0), field.number))
            return Column(wanted, _numbers(field, self.matrix[:, starts : starts + sizes]))
        data = np.frombuffer(self._cut_out(starts, sizes), np.uint8)
        counts, sizes = np.broadcast_to(counts, len(self.rows)), np.broadcast_to(sizes, len(self.rows))
        present = counts if valid is None else counts[valid]
        if len(present) and present[0] and (present == present[0]).all():
            items = _numbers(field, data.reshape(len(present), -1)).reshape(-1)
        elif field.storage == "int8":
            ends = sizes.cumsum()
            lists = [
                _numbers(field, data[None, end - size : end])[0] for size, end in zip(sizes, ends, strict=True) if size
            ]
            items = np.concatenate(lists) if lists else np.empty(0, field.number)
        else:
            items = _numbers(field, data[None, :])[0]
        return columns.lists_of_numbers(wanted, items, counts, valid)


def read_event_timestamps(matrix: NDArray[np.uint8]) -> Ints:
    """[m], the event timestamp of each row, strided."""
    return matrix[:, : _TIME.itemsize].view(_TIME)[:, 0]


def read_null_bits(matrix: NDArray[np.uint8], bit: int) -> NDArray[np.bool_]:
    """[m], where a bit of the null mask is set."""
    return (matrix[:, HEADER_SIZE + bit // 8] & np.uint8(1 << bit % 8)) != 0


def _side_by_side(matrix: NDArray[np.uint8], at: int, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """`count` values that stand from byte `at` on in each row, [count, m]: each contiguous."""
    if not count:
        return np.empty((0, len(matrix)), dtype)
    return matrix[:, at : at + count * dtype.itemsize].view(dtype).T.copy()


def _numbers(field: Field, stored: NDArray[np.uint8], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Bytes [m, size] as numbers [m, width], contiguous, in `out` if that fits."""
    elements = stored[:, field.scale_size :].view(field.stored)
    if out is not None and out.size == elements.size and out.dtype == field.number and out.flags.c_contiguous:
        values = out.reshape(elements.shape)
    elif field.storage in ("int8", "float16"):
        values = np.empty(elements.shape, field.number)
    else:
        return elements.astype(field.number, order="C")
    if field.storage == "int8":
        np.multiply(elements, stored[:, :4].view("<f4"), out=values)
    elif field.storage == "float16" and values.dtype == np.float32:
        quantization.widen_float16(elements, values)
    else:
        np.copyto(values, elements)
    return values


def _texts(data: bytes, sizes: Ints, valid: NDArray[np.bool_] | None, kind: pa.DataType) -> pa.Array:
    """Arrow texts or bytes from bytes laid end to end."""
    offsets = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(sizes), [mask, pa.py_buffer(offsets), pa.py_buffer(data)])


def _lists_of_texts(data: bytes, sizes: Ints, valid: NDArray[np.bool_] | None, field: Field) -> pa.Array:
    """Arrow lists from, for each row, a count, the lengths and the bytes of its items."""
    ends = sizes.cumsum().tolist()
    lengths, texts, counts = [], [], np.zeros(len(sizes), np.int64)
    for i, (size, end) in enumerate(zip(sizes.tolist(), ends, strict=True)):
        if size:
            start = end - size
            counts[i] = int.from_bytes(data[start : start + 4], "little")
            text_start = start + 4 + 4 * int(counts[i])
            lengths.append(data[start + 4 : text_start])
            texts.append(data[text_start:end])
    item_sizes = np.frombuffer(b"".join(lengths), "<u4").astype(np.int64)
    items = _texts(b"".join(texts), item_sizes, None, columns.element_type(field))
    return columns.make_lists(counts, items, valid)
