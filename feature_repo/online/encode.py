"""Columns to packed rows (layout.py draws them), never one Python object per value.

The rows of a batch are laid into one matrix of bytes, so that each fixed field is written at one go and the checksums
of all rows are one multiply-add. Only what varies in length is joined row by row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.online import quantization
from feature_repo.online.checksum import CHECKSUM, WORD, compute_checksums
from feature_repo.online.row_format import HEADER_SIZE, NO_CREATED_TIMESTAMP, Layout

Dictionaries = Mapping[str, Sequence[str]]
"""Of each feature with storage "dictionary": its texts, in the order of their codes."""

_SMALL_ROW = 4096
"""Rows up to this many bytes are padded to one width; longer ones only together with others of about their size."""


def encode_rows(
    layout: Layout,
    features: Mapping[str, Column],
    event: NDArray[np.int64],
    created: NDArray[np.int64] | None,
    words: Dictionaries,
) -> list[bytes]:
    """One packed row for each of n entities.

    Args:
        layout: of the rows.
        features: a column of n for each field; a field without one is null.
        event: [n], microseconds since 1970 UTC.
        created: likewise; None if unknown.
        words: of each feature with storage "dictionary", texts that include all that occur.

    Raises:
        VitrineError: a value does not fit its field's storage.
    """
    count = len(event)
    rows: list[bytes] = [b""] * count
    if not count:
        return rows
    found = {field.name: features.get(field.name) or columns.empty(field, count) for field in layout.fields}
    prefix = _prefix(layout, found, event, created, words)
    lists = [(field, found[field.name]) for field in layout.lists]
    texts = [_bytes_of(field, found[field.name]) for field in layout.texts]
    for field, (sizes, _, _) in zip(layout.texts, texts, strict=True):
        _put(prefix, layout.offset[field.name], sizes.astype("<u4"))
    counts = np.array([_list_sizes(column) for _, column in lists], np.int64).reshape(len(lists), count).T
    for (field, _), size in zip(lists, counts.T, strict=True):
        _put(prefix, layout.offset[field.name], size.astype("<u4"))
    for group in _alike(counts):
        list_size = sum(_list_bytes(field, int(size)) for (field, _), size in zip(lists, counts[group[0]], strict=True))
        ends = np.full(len(group), layout.prefix_size + list_size)
        ends += sum((sizes[group] for sizes, _, _ in texts), start=np.zeros(len(group), np.int64))
        for part in group_by_size(ends):
            _pack(prefix, lists, texts, layout.prefix_size + list_size, group[part], ends[part], rows)
    return rows


def _pack(
    prefix: NDArray[np.uint8],
    lists: Sequence[tuple[Field, Column]],
    texts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]],
    text_start: int,
    chosen: NDArray[np.int64],
    ends: NDArray[np.int64],
    rows: list[bytes],
) -> None:
    """Fill in the rows `chosen` of `rows`, whose lists are of the same lengths; `ends` is where each ends, unpadded."""
    sizes = ends + -ends % WORD
    width = int(sizes.max())
    every = slice(None) if len(chosen) == len(prefix) else chosen
    matrix = np.zeros((len(chosen), width), np.uint8)
    matrix[:, : prefix.shape[1]] = prefix[every]
    at = prefix.shape[1]
    for field, column in lists:
        block = _list_block(field, column, every)
        matrix[:, at : at + block.shape[1]] = block
        at += block.shape[1]
    begins = np.arange(len(chosen)) * width + text_start
    for text_sizes, starts, data in texts:
        matrix.reshape(-1)[_spans(begins, text_sizes[every])] = data[_spans(starts[every], text_sizes[every])]
        begins += text_sizes[every]
    _put(matrix, CHECKSUM.start, compute_checksums(matrix, sizes))
    if len(chosen) == len(rows) and (sizes == width).all():
        rows[:] = matrix.view(f"V{width}")[:, 0].tolist()
        return
    packed = matrix.tobytes()
    for begin, i, size in zip(range(0, len(packed), width), chosen.tolist(), sizes.tolist(), strict=True):
        rows[i] = packed[begin : begin + size]


def _prefix(
    layout: Layout,
    features: Mapping[str, Column],
    event: NDArray[np.int64],
    created: NDArray[np.int64] | None,
    words: Dictionaries,
) -> NDArray[np.uint8]:
    """Header, null mask and fixed fields [n, prefix size]."""
    count = len(event)
    prefix = np.zeros((count, layout.prefix_size), np.uint8)
    _put(prefix, 0, event.astype("<i8"))
    _put(prefix, 8, (np.full(count, NO_CREATED_TIMESTAMP) if created is None else created).astype("<i8"))
    _put(prefix, 16, np.full(count, layout.fingerprint, "<u4"))
    for bit, field in enumerate(layout.fields):
        column = features[field.name]
        missing = _missing(column)
        if missing is not None:
            prefix[:, HEADER_SIZE + bit // 8] |= missing.astype(np.uint8) << np.uint8(bit % 8)
        if field.form == "code":
            _put(prefix, layout.offset[field.name], _codes(field, column, words))
        elif field.form in ("number", "vector"):
            values = column.values if column.values.size else np.zeros(field.shape(count), field.number)
            if missing is not None:
                values = values.copy()
                values[missing] = 0
            _put(prefix, layout.offset[field.name], _stored(field, values))
    return prefix


def _put(matrix: NDArray[np.uint8], at: int, values: NDArray[Any]) -> None:
    """Write values [n] or bytes [n, size] into the matrix from column `at` on."""
    if values.dtype != np.uint8:
        values = np.ascontiguousarray(values).view(np.uint8)
    values = values.reshape(len(matrix), -1)
    matrix[:, at : at + values.shape[1]] = values


def _missing(column: Column) -> NDArray[np.bool_] | None:
    """[n], where there is no value; None if nowhere."""
    if isinstance(column.values, np.ndarray):
        return None if column.valid is None else ~column.valid
    return np.asarray(column.values.is_null()) if column.values.null_count else None


def _stored(field: Field, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers [n] or lists of one length [n, width] in their stored form, as bytes [n, size]."""
    if field.storage == "int8":
        scales, elements = quantization.quantize_int8(values, field.name)
        return np.concatenate([scales.astype("<f4").view(np.uint8), elements.view(np.uint8)], axis=1)
    if field.storage in ("float16", "float32"):
        values = quantization.narrow_floats(values, field.stored, field.name)
    return np.array(values, field.stored, order="C").view(np.uint8).reshape(len(values), -1)


def _codes(field: Field, column: Column, words: Dictionaries) -> NDArray[np.uint16]:
    """The place of each text in the field's dictionary; 0 where missing."""
    coded = column.values if isinstance(column.values.type, pa.DictionaryType) else column.values.dictionary_encode()
    place = {word: code for code, word in enumerate(words[field.name])}
    codes = np.array([*(place[word] for word in coded.dictionary.to_pylist()), 0], np.uint16)
    return codes[np.asarray(coded.indices.fill_null(len(codes) - 1))]


def _list_sizes(column: Column) -> NDArray[np.int64]:
    """Elements of each list; 0 where missing."""
    if isinstance(column.values, np.ndarray):
        there = np.ones(len(column), np.bool_) if column.valid is None else column.valid
        return there * column.values.shape[1]
    return np.asarray(pc.list_value_length(column.values).fill_null(0)).astype(np.int64)


def _list_bytes(field: Field, elements: int) -> int:
    """Bytes of a list of so many elements."""
    return field.scale_size + elements * field.stored.itemsize if elements else 0


def _list_block(field: Field, column: Column, rows: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
    """The lists of some rows, which are of one length, in their stored form [m, bytes]."""
    if isinstance(column.values, np.ndarray):
        lists = column.values[rows]
        if column.valid is not None and not column.valid[rows].all():
            lists = lists[:, :0]
    else:
        part = column.values if isinstance(rows, slice) else column.values.take(pa.array(rows))
        element = Field(field.name, field.base)
        lists = columns.from_arrow(element, part.flatten()).values.reshape(len(part), -1)
    return _stored(field, lists) if lists.shape[1] else np.empty((len(lists), 0), np.uint8)


def _bytes_of(field: Field, column: Column) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Of a text: the bytes of each value, where each begins, and the bytes; none where missing."""
    values = column.values.cast(pa.binary()) if not field.is_list else _join_items(column.values)
    if values.null_count:
        values = values.fill_null(b"")
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int32, len(values) + 1, 4 * values.offset).astype(np.int64)
    return np.diff(ends), ends[:-1], np.frombuffer(data or b"", np.uint8)


def _join_items(lists: pa.Array) -> pa.Array:
    """Each list of texts as one value: a count, the lengths and the bytes of its items; nothing where missing."""
    items = lists.flatten().cast(pa.binary())
    lengths = np.asarray(pc.binary_length(items)).astype("<u4")
    text_ends = np.concatenate([[0], lengths.cumsum(dtype=np.int64)]).tolist()
    counts = np.asarray(pc.list_value_length(lists).fill_null(0))
    heads, tables, texts = counts.astype("<u4").tobytes(), lengths.tobytes(), b"".join(items.to_pylist())
    joined: list[bytes] = []
    for i, (count, end, there) in enumerate(
        zip(counts.tolist(), counts.cumsum().tolist(), lists.is_valid().to_pylist(), strict=True)
    ):
        begin = end - count
        text = heads[4 * i : 4 * i + 4] + tables[4 * begin : 4 * end] + texts[text_ends[begin] : text_ends[end]]
        joined.append(text if there else b"")
    return pa.array(joined, pa.binary())


def _spans(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1, ... (sizes[0] of them), then starts[1], ..."""
    places = np.repeat(starts - (sizes.cumsum() - sizes), sizes)
    places += np.arange(len(places))
    return places.astype(np.int64, copy=False)


def _alike(counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Row numbers in groups that agree in all of counts [n, lists]."""
    if (counts == counts[0]).all():
        return [np.arange(len(counts))]
    _, group = np.unique(counts, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def group_by_size(sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Row numbers in groups that waste little when padded to the longest of each."""
    if sizes.max() <= max(_SMALL_ROW, 2 * int(sizes.min())):
        return [np.arange(len(sizes))]
    classes = np.ceil(np.log2(np.maximum(sizes, _SMALL_ROW))).astype(np.int64)
    return [np.flatnonzero(classes == one) for one in np.unique(classes)]
