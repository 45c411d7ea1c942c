"""Packed rows (layout.py draws them) to columns, never one Python object per value.

Rows are joined to one matrix of bytes: their checksums are one multiply-add, a fixed field is a strided view. Nothing
that comes out shares memory with the rows.

Nearly always all rows are there, sound and of one layout: that is seen at one go (`_all_alike`). Only where it is not
so are the rows sorted into those that can be read together and those that cannot (`_fit_to_read`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.tables import columns, precision
from feature_repo.tables.checksum import WORD, sound
from feature_repo.tables.columns import Column
from feature_repo.tables.encode import Words, of_one_size
from feature_repo.tables.layout import HEADER_SIZE, Field, Layout

FINGERPRINT = slice(16, 20)
_UINT32 = np.dtype("<u4")
_TIME = np.dtype("<i8")
_SHORT = 32
"""Bytes up to which a mask cuts out a field of all rows sooner than a slice of each row does."""


class Status(IntEnum):
    """What became of a row that was asked for."""

    PRESENT = 0
    STALE = 1
    """It is there, but older than its view's TTL."""
    ABSENT = 2
    FAILED = 3
    """It is damaged, or of a layout or with a code that its reader does not know."""


@dataclass(frozen=True)
class Rows:
    """What was read of n entities in one view."""

    columns: dict[str, Column]
    status: NDArray[np.uint8]
    """[n], of Status."""
    event_timestamp: NDArray[np.int64]
    """[n], microseconds since 1970 UTC; 0 for an absent or failed row."""
    unknown: bool = False
    """Whether a row failed though it is sound: its layout or a code came to the store after the reader had looked."""


@dataclass(frozen=True)
class _Batch:
    """Rows of one layout that are fit to be read."""

    rows: Sequence[bytes]
    matrix: NDArray[np.uint8]
    """[m, width], the rows, zeros after the end of each."""
    layout: Layout

    @cached_property
    def complete(self) -> bool:
        """Whether no row lacks a field."""
        return not self.matrix[:, HEADER_SIZE : HEADER_SIZE + self.layout.mask_size].any()

    @cached_property
    def extents(self) -> dict[str, "_Extent"]:
        """Of each varying field, where it begins in each row, its elements, its bytes: int64 [m] each."""
        starts = np.full(len(self.rows), self.layout.prefix_size)
        found = {}
        for field in (*self.layout.lists, *self.layout.texts):
            counts = _view(self.matrix, self.layout.offset[field.name], _UINT32).astype(np.int64)
            sizes = counts
            if field.form == "list":
                sizes = counts * field.stored.itemsize
                if field.scale_size:
                    sizes += (counts > 0) * field.scale_size
            found[field.name] = starts, counts, sizes
            starts = starts + sizes
        return found


_Extent = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
_Part = tuple[NDArray[np.int64], _Batch]
"""[m], where the rows of a batch stand among those asked for, and the batch."""


def decode(
    rows: Sequence[bytes | None],
    layouts: Mapping[int, Layout],
    wanted: Sequence[Field],
    words: Words,
    *,
    oldest: int | None = None,
    keep_stale: bool = False,
    out: Mapping[str, NDArray[Any]] | None = None,
) -> Rows:
    """Columns from the packed rows of n entities, in their order.

    Args:
        rows: None where the store has none.
        layouts: by fingerprint, those that rows may be of.
        wanted: the fields to give back, as the reader knows them; null in rows whose layout has none of that type.
        words: dictionaries of the features with storage "dictionary".
        oldest: event timestamp in microseconds since 1970 UTC; a row before it is stale.
        keep_stale: give the values of stale rows, which are missing otherwise.
        out: for features that are floats or vectors of floats, the array [n] or [n, width] that takes the values.

    Raises:
        VitrineError: an array of `out` has another shape or dtype than its feature.
    """
    out = out or {}
    alike = _all_alike(rows, layouts, words, oldest)
    if alike is not None:
        found = {field.name: _column(alike, field, words, out.get(field.name)) for field in wanted}
        status = np.zeros(len(rows), np.uint8)  # Status.PRESENT
        event = _view(alike.matrix, 0, _TIME).copy()
        unknown = False
    else:
        parts, status, event, unknown = _fit_to_read(rows, layouts, wanted, words, oldest, keep_stale)
        found = {field.name: _merged(parts, field, words, len(rows)) for field in wanted}
    for name in found.keys() & out.keys():
        found[name] = columns.into(found[name], out[name])
    return Rows(found, status, event, unknown)


def _all_alike(
    rows: Sequence[bytes | None], layouts: Mapping[int, Layout], words: Words, oldest: int | None
) -> _Batch | None:
    """All rows as one batch; None if one is absent, stale, damaged, of another layout or of a far other size."""
    if not len(rows) or rows[0] is None:
        return None
    present = cast(Sequence[bytes], rows)
    layout = layouts.get(int.from_bytes(present[0][FINGERPRINT], "little"))
    if layout is None:
        return None
    try:
        size, joined = len(present[0]), b"".join(present)
    except TypeError:  # one is None
        return None
    if len(joined) == size * len(rows):
        # Rows of several sizes may sum up to this too: cut at the wrong places, their checksums do not fit.
        if size < layout.prefix_size or size % WORD:
            return None
        matrix = np.frombuffer(joined, np.uint8).reshape(len(rows), size)
        fit = sound(matrix, size)
    else:
        sizes = np.fromiter(map(len, present), np.int64, len(present))
        if sizes.min() < layout.prefix_size or (sizes % WORD).any() or len(of_one_size(sizes)) > 1:
            return None
        matrix = _matrix(present, sizes)
        fit = sound(matrix, sizes)
    if (
        not fit.all()
        or matrix[:, FINGERPRINT].tobytes() != present[0][FINGERPRINT] * len(rows)
        or (oldest is not None and _view(matrix, 0, _TIME).min() < oldest)
        or not _has_all_words(matrix, layout, words)
    ):
        return None
    return _Batch(present, matrix, layout)


def _has_all_words(matrix: NDArray[np.uint8], layout: Layout, words: Words) -> bool:
    """Whether the dictionaries have the words of all codes, wanted or not; the code of null is zero."""
    if not layout.codes:
        return True
    start, size = layout.offset[layout.codes[0].name], layout.codes[0].size
    codes = matrix[:, start : start + len(layout.codes) * size].view(layout.codes[0].stored)
    return all(
        code < len(words.get(field.name, ()))
        for code, field in zip(codes.max(axis=0).tolist(), layout.codes, strict=True)
    )


def _fit_to_read(
    rows: Sequence[bytes | None],
    layouts: Mapping[int, Layout],
    wanted: Sequence[Field],
    words: Words,
    oldest: int | None,
    keep_stale: bool,
) -> tuple[list[_Part], NDArray[np.uint8], NDArray[np.int64], bool]:
    """The rows whose values are asked for, and `status`, `event_timestamp` and `unknown` of `Rows`."""
    status = np.full(len(rows), Status.ABSENT, np.uint8)
    event = np.zeros(len(rows), np.int64)
    unknown = np.zeros(len(rows), np.bool_)
    parts: list[_Part] = []
    place = np.flatnonzero([row is not None for row in rows])
    present = [row for row in rows if row is not None]
    status[place] = Status.FAILED
    sizes = np.fromiter(map(len, present), np.int64, len(present))
    for group in of_one_size(sizes) if present else ():
        chosen = [present[i] for i in group.tolist()]
        matrix = _matrix(chosen, sizes[group])
        whole = sound(matrix, sizes[group]) & (sizes[group] % WORD == 0) & (sizes[group] >= HEADER_SIZE)
        fingerprints = _view(matrix, FINGERPRINT.start, _UINT32)
        for fingerprint in np.unique(fingerprints):
            layout = layouts.get(int(fingerprint))
            own = whole & (fingerprints == fingerprint)
            unknown[place[group[own]]] = True
            if layout is None:
                continue
            own &= sizes[group] >= layout.prefix_size
            if not own.any():
                continue
            for field in layout.codes:
                if any(one.name == field.name for one in wanted):
                    known = _codes(matrix, layout, field) < len(words[field.name])
                    own &= known | _null(matrix, layout.position[field.name])
            unknown[place[group[own]]] = False
            times = _view(matrix, 0, _TIME)
            stale = np.zeros(len(group), np.bool_) if oldest is None else times < oldest
            event[place[group[own]]] = times[own]
            status[place[group[own]]] = np.where(stale[own], Status.STALE, Status.PRESENT)
            read = np.flatnonzero(own if keep_stale else own & ~stale)
            if len(read):
                parts.append((place[group[read]], _Batch([chosen[i] for i in read.tolist()], matrix[read], layout)))
    return parts, status, event, bool(unknown.any())


def _merged(parts: Sequence[_Part], wanted: Field, words: Words, count: int) -> Column:
    """The field `wanted` of all rows, missing where they are in no part."""
    if not parts:
        return columns.empty(wanted, count)
    return columns.merge(wanted, [(place, _column(batch, wanted, words, None)) for place, batch in parts], count)


def _codes(matrix: NDArray[np.uint8], layout: Layout, field: Field) -> NDArray[np.uint16]:
    """[m], zero where null."""
    return _view(matrix, layout.offset[field.name], field.stored)


def _matrix(rows: Sequence[bytes], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Rows as a matrix [m, width], zeros after the end of each; width is a multiple of a word, and holds a header."""
    width = max(int(sizes.max()), HEADER_SIZE)
    width += -width % WORD
    if int(sizes.min()) != width:
        rows = [row.ljust(width, b"\0") for row in rows]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), width)


def _view(matrix: NDArray[np.uint8], at: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The value of `dtype` that stands at byte `at` of each row, [m], strided."""
    return matrix[:, at : at + dtype.itemsize].view(dtype)[:, 0]


def _column(batch: _Batch, wanted: Field, words: Words, out: NDArray[Any] | None) -> Column:
    """The field `wanted` of the batch's rows, empty if their layout has none of that type."""
    field = batch.layout.by_name.get(wanted.name)
    if field is None or field.type != wanted.type:
        return columns.empty(wanted, len(batch.rows))
    valid = _valid(batch, field)
    at = batch.layout.offset[field.name]
    if field.form in ("number", "vector"):
        values = _numbers(field, batch.matrix[:, at : at + field.size], out)
        if field.form == "number":
            values = values[:, 0]
        if valid is not None and values.dtype.kind == "f":
            values[~valid] = np.nan
        return Column(wanted, values, valid)
    if field.form == "code":
        return Column(wanted, _codes(batch.matrix, batch.layout, field).copy(), valid, words[field.name])
    starts, counts, sizes = batch.extents[field.name]
    if field.form == "list":
        return _lists(batch, field, wanted, starts, counts, sizes, valid)
    data = _cut_out(batch, starts, sizes)
    if field.form == "bytes":
        return Column(wanted, _texts(data, sizes, valid, columns.element_type(field)))
    return Column(wanted, _lists_of_texts(data, sizes, valid, field))


def _valid(batch: _Batch, field: Field) -> NDArray[np.bool_] | None:
    """[m], which rows have the field; None if all do."""
    if batch.complete:
        return None
    null = _null(batch.matrix, batch.layout.position[field.name])
    return ~null if null.any() else None


def _null(matrix: NDArray[np.uint8], bit: int) -> NDArray[np.bool_]:
    """[m], where a bit of the null mask is set."""
    return (matrix[:, HEADER_SIZE + bit // 8] & np.uint8(1 << bit % 8)) != 0


def _numbers(field: Field, stored: NDArray[np.uint8], out: NDArray[Any] | None) -> NDArray[Any]:
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
        precision.widen_half(elements, values)
    else:
        np.copyto(values, elements)
    return values


def _cut_out(batch: _Batch, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> bytes:
    """The bytes of one field, row after row."""
    if (starts == starts[0]).all():
        longest = int(sizes.max())
        block = batch.matrix[:, starts[0] : starts[0] + longest]
        if (sizes == longest).all():
            return block.tobytes()
        if longest <= _SHORT:
            return block[np.arange(longest) < sizes[:, None]].tobytes()
    ends = (starts + sizes).tolist()
    return b"".join([row[start:end] for row, start, end in zip(batch.rows, starts.tolist(), ends, strict=True)])


def _lists(
    batch: _Batch,
    field: Field,
    wanted: Field,
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    valid: NDArray[np.bool_] | None,
) -> Column:
    """A varying list of numbers: a matrix where all that are there have one length."""
    if valid is None and (starts == starts[0]).all() and (counts == counts[0]).all():
        stored = batch.matrix[:, starts[0] : starts[0] + sizes[0]]
        return Column(wanted, _numbers(field, stored, None) if counts[0] else np.empty((len(counts), 0), field.number))
    present = counts if valid is None else counts[valid]
    data = np.frombuffer(_cut_out(batch, starts, sizes), np.uint8)
    if len(present) and present[0] and (present == present[0]).all():
        items = _numbers(field, data.reshape(len(present), -1), None).reshape(-1)
    elif field.storage == "int8":
        ends = sizes.cumsum()
        lists = [
            _numbers(field, data[None, end - size : end], None)[0]
            for size, end in zip(sizes, ends, strict=True)
            if size
        ]
        items = np.concatenate(lists) if lists else np.empty(0, field.number)
    else:
        items = _numbers(field, data[None, :], None)[0]
    return columns.lists_of_numbers(wanted, items, counts, valid)


def _texts(data: bytes, sizes: NDArray[np.int64], valid: NDArray[np.bool_] | None, kind: pa.DataType) -> pa.Array:
    """Arrow texts or bytes from bytes laid end to end."""
    offsets = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(sizes), [mask, pa.py_buffer(offsets), pa.py_buffer(data)])


def _lists_of_texts(data: bytes, sizes: NDArray[np.int64], valid: NDArray[np.bool_] | None, field: Field) -> pa.Array:
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
