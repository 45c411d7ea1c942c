"""Packed rows of one layout (see row_format.py) as a matrix of bytes, and each of their fields as a column.

A fixed field is a strided view of the matrix. So is a varying field that starts at the same byte and has the same size
in all rows. Returned columns share no memory with the rows.
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

Int64 = NDArray[np.int64]
_PerRow = int | Int64
"""A number for each row, [m], or one number if all rows have the same."""
_UINT32 = np.dtype("<u4")
_TIMESTAMP = np.dtype("<i8")
_SHORT = 32
"""Bytes up to which cutting a field out of all rows with a mask is faster than slicing each row."""


@dataclass(frozen=True)
class RowMatrix:
    """One or more packed rows of one layout, whose checksums the caller has verified."""

    rows: Sequence[bytes]
    """The m packed rows."""
    matrix: NDArray[np.uint8]
    """uint8 [m, width], the same rows, with zeros after the end of each; width is a multiple of 8."""
    layout: Layout
    """The layout of all rows."""

    @cached_property
    def event_timestamps_us(self) -> Int64:
        """The event timestamp of each row, int64 [m], microseconds since 1970 UTC."""
        return read_event_timestamps(self.matrix).copy()

    @cached_property
    def codes(self) -> NDArray[np.uint16]:
        """The codes of each of `layout.code_fields`, in their order, uint16 [code fields, m]; zero where null.

        A code is the index of a text in the field's dictionary.
        """
        fields = self.layout.code_fields
        offset = self.layout.offsets[fields[0].name] if fields else 0
        return _read_adjacent(self.matrix, offset, len(fields), np.dtype("<u2"))

    def read_column(self, field: Field, dictionaries: Dictionaries, out: NDArray[Any] | None = None) -> Column:
        """Return a field of all rows as a column of m values, in the order of the rows.

        All values are missing if the layout has no field of that name and type.

        Args:
            field: the field as the reader knows it. The rows' layout may store it differently.
            dictionaries: the texts of features with storage "dictionary".
            out: receives the values of a number or of a vector of declared length if it is contiguous and its size and
                dtype fit; otherwise it is not touched.

        Raises:
            KeyError: the field is stored as codes, and `dictionaries` has no texts for it.
        """
        stored = self.layout.fields_by_name.get(field.name)
        if stored is None or stored.type != field.type:
            return columns.make_missing(field, len(self.rows))
        valid = self._read_valid(stored)
        form, offset = stored.form, self.layout.offsets[stored.name]
        if form in ("number", "vector"):
            values = _decode_numbers(stored, self.matrix[:, offset : offset + stored.size], out)
            if form == "number":
                values = values[:, 0]
            if valid is not None and values.dtype.kind == "f":
                values[~valid] = np.nan
            return Column(field, values, valid)
        if form == "code":
            bits = self.layout.bit_indexes  # code fields are adjacent, so are their bits
            codes = self.codes[bits[stored.name] - bits[self.layout.code_fields[0].name]]
            return Column(field, codes, valid, dictionaries[stored.name])
        if form == "list":
            return self._read_lists(stored, field, valid)
        starts, _, sizes = self._extents[stored.name]
        data, row_sizes = self._cut_out(starts, sizes), np.broadcast_to(sizes, len(self.rows))
        if form == "bytes":
            return Column(field, _build_texts(data, row_sizes, valid, columns.element_type(stored)))
        return Column(field, _decode_text_lists(data, row_sizes, valid, stored))

    @cached_property
    def _is_complete(self) -> bool:
        """Whether no field of any row is null."""
        return not self.matrix[:, HEADER_SIZE : HEADER_SIZE + self.layout.mask_size].any()

    def _read_valid(self, field: Field) -> NDArray[np.bool_] | None:
        """Return which rows have the field, [m]; None if all have it."""
        if self._is_complete:
            return None
        missing = read_null_bits(self.matrix, self.layout.bit_indexes[field.name])
        return ~missing if missing.any() else None

    @cached_property
    def _extents(self) -> dict[str, tuple[_PerRow, _PerRow, _PerRow]]:
        """The start, the number of elements and the size of each varying field, by name."""
        fields = (*self.layout.list_fields, *self.layout.bytes_fields)
        offset = self.layout.offsets[fields[0].name]
        all_counts = _read_adjacent(self.matrix, offset, len(fields), _UINT32).astype(np.int64)
        are_equal = (all_counts == all_counts[:, :1]).all(axis=1).tolist()
        starts: _PerRow = self.layout.prefix_size
        extents = {}
        for field, field_counts, is_equal in zip(fields, all_counts, are_equal, strict=True):
            counts: _PerRow = int(field_counts[0]) if is_equal else field_counts
            sizes = counts
            if field.form == "list":
                sizes = counts * field.stored.itemsize + (counts > 0) * field.scale_size
            extents[field.name] = starts, counts, sizes
            starts = starts + sizes
        return extents

    def _cut_out(self, starts: _PerRow, sizes: _PerRow) -> bytes:
        """Return the bytes of one field, row after row."""
        if isinstance(starts, int):
            longest = sizes if isinstance(sizes, int) else int(sizes.max())
            block = self.matrix[:, starts : starts + longest]
            if isinstance(sizes, int):
                return block.tobytes()
            if longest <= _SHORT:
                return block.reshape(-1)[(np.arange(longest) < sizes[:, None]).reshape(-1)].tobytes()
        row_starts = np.broadcast_to(starts, len(self.rows))
        ends = row_starts + sizes
        return b"".join([row[i:j] for row, i, j in zip(self.rows, row_starts.tolist(), ends.tolist(), strict=True)])

    def _read_lists(self, stored: Field, field: Field, valid: NDArray[np.bool_] | None) -> Column:
        """Return a varying list of numbers; as a matrix if no list is missing and all start and end alike."""
        starts, counts, sizes = self._extents[stored.name]
        if valid is None and isinstance(starts, int) and isinstance(counts, int) and isinstance(sizes, int):
            if not counts:
                return Column(field, np.empty((len(self.rows), 0), stored.number))
            return Column(field, _decode_numbers(stored, self.matrix[:, starts : starts + sizes]))
        data = np.frombuffer(self._cut_out(starts, sizes), np.uint8)
        counts, sizes = np.broadcast_to(counts, len(self.rows)), np.broadcast_to(sizes, len(self.rows))
        valid_counts = counts if valid is None else counts[valid]
        if len(valid_counts) and valid_counts[0] and (valid_counts == valid_counts[0]).all():
            items = _decode_numbers(stored, data.reshape(len(valid_counts), -1)).reshape(-1)
        elif stored.storage == "int8":
            ends = sizes.cumsum()
            lists = [
                _decode_numbers(stored, data[None, end - size : end])[0]
                for size, end in zip(sizes, ends, strict=True)
                if size
            ]
            items = np.concatenate(lists) if lists else np.empty(0, stored.number)
        else:
            items = _decode_numbers(stored, data[None, :])[0]
        return columns.make_number_lists(field, items, counts, valid)


def read_event_timestamps(matrix: NDArray[np.uint8]) -> Int64:
    """Return the event timestamp of each row of a matrix, int64 [m], microseconds since 1970 UTC, as a view of it.

    Args:
        matrix: uint8 [m, width], packed rows, with zeros after the end of each.
    """
    return matrix[:, : _TIMESTAMP.itemsize].view(_TIMESTAMP)[:, 0]


def read_null_bits(matrix: NDArray[np.uint8], bit: int) -> NDArray[np.bool_]:
    """Return whether a bit of the null mask is set in each row of a matrix, bool [m]: whether the field is null.

    Args:
        matrix: uint8 [m, width], packed rows, with zeros after the end of each.
        bit: index of the bit, which `Layout.bit_indexes` gives for a field.
    """
    return (matrix[:, HEADER_SIZE + bit // 8] & np.uint8(1 << bit % 8)) != 0


def _read_adjacent(matrix: NDArray[np.uint8], offset: int, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `count` adjacent values of each row from byte `offset` on, [count, m], each contiguous."""
    if not count:
        return np.empty((0, len(matrix)), dtype)
    return matrix[:, offset : offset + count * dtype.itemsize].view(dtype).T.copy()


def _decode_numbers(field: Field, stored: NDArray[np.uint8], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return stored bytes [m, size] as numbers [m, width], contiguous; in `out` if its size and dtype fit."""
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


def _build_texts(data: bytes, sizes: Int64, valid: NDArray[np.bool_] | None, kind: pa.DataType) -> pa.Array:
    """Return an Arrow array of texts or bytes whose values are concatenated in `data`."""
    offsets = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(sizes), [mask, pa.py_buffer(offsets), pa.py_buffer(data)])


def _decode_text_lists(data: bytes, sizes: Int64, valid: NDArray[np.bool_] | None, field: Field) -> pa.Array:
    """Return an Arrow array of lists from the count, the lengths and the bytes of the items of each row."""
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
    items = _build_texts(b"".join(texts), item_sizes, None, columns.element_type(field))
    return columns.make_list_array(counts, items, valid)
