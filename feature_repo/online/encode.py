"""Encode columns as packed rows (see row_format.py), without a Python object per value.

The rows of a batch are built as one matrix of bytes: each fixed field is written in one step, and the checksums of all
rows are one multiply-add. Only values of varying length are joined row by row.
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
from feature_repo.errors import InvalidInputError
from feature_repo.online import quantization
from feature_repo.online.row_format import (
    CHECKSUM,
    HEADER_SIZE,
    NO_CREATED_TIMESTAMP,
    WORD_SIZE,
    Layout,
    compute_checksums,
)

Dictionaries = Mapping[str, Sequence[str]]
"""For each feature with storage "dictionary" its texts; the index of a text is its code."""

_SMALL_ROW = 4096
"""Rows up to this many bytes are padded to one width; longer ones only together with others of similar size."""


def encode_rows(
    layout: Layout,
    features: Mapping[str, Column],
    event_timestamps_us: NDArray[np.int64],
    created_timestamps_us: NDArray[np.int64] | None,
    dictionaries: Dictionaries,
) -> list[bytes]:
    """Return the packed rows of n entities, in their order.

    Args:
        layout: the layout of the rows.
        features: a column of n values for each field, by name; a field without a column is null, a column without a
            field is ignored.
        event_timestamps_us: int64 [n], microseconds since 1970 UTC.
        created_timestamps_us: int64 [n], microseconds since 1970 UTC; None if unknown.
        dictionaries: for each field with storage "dictionary", also one without a column, all texts that occur.

    Raises:
        InvalidInputError: a value does not fit its field's storage, or a dictionary is missing or lacks a text.
    """
    count = len(event_timestamps_us)
    rows: list[bytes] = [b""] * count
    if not count:
        return rows
    encoded = {field.name: features.get(field.name) or columns.make_missing(field, count) for field in layout.fields}
    prefix = _encode_prefix(layout, encoded, event_timestamps_us, created_timestamps_us, dictionaries)
    lists = [(field, encoded[field.name]) for field in layout.list_fields]
    texts = [_encode_bytes(field, encoded[field.name]) for field in layout.bytes_fields]
    for field, (sizes, _, _) in zip(layout.bytes_fields, texts, strict=True):
        _put(prefix, layout.offsets[field.name], sizes.astype("<u4"))
    counts = np.array([_count_elements(column) for _, column in lists], np.int64).reshape(len(lists), count).T
    for (field, _), size in zip(lists, counts.T, strict=True):
        _put(prefix, layout.offsets[field.name], size.astype("<u4"))
    for group in _group_equal_rows(counts):
        list_size = sum(_list_size(field, int(size)) for (field, _), size in zip(lists, counts[group[0]], strict=True))
        ends = np.full(len(group), layout.prefix_size + list_size)
        ends += sum((sizes[group] for sizes, _, _ in texts), start=np.zeros(len(group), np.int64))
        for part in group_by_size(ends):
            _pack(prefix, lists, texts, layout.prefix_size + list_size, group[part], ends[part], rows)
    return rows


def group_by_size(sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return row indexes in groups that waste little when padded to the largest row of each.

    Each row is in one group. The groups go from small to large rows, the indexes in each are ascending. It is one group
    if no row is longer than 4,096 bytes, or if the longest is at most twice the shortest.

    Args:
        sizes: bytes of each row, int64 [n], n >= 1.
    """
    if sizes.max() <= max(_SMALL_ROW, 2 * int(sizes.min())):
        return [np.arange(len(sizes))]
    classes = np.ceil(np.log2(np.maximum(sizes, _SMALL_ROW))).astype(np.int64)
    return [np.flatnonzero(classes == one) for one in np.unique(classes)]


def _pack(
    prefix: NDArray[np.uint8],
    lists: Sequence[tuple[Field, Column]],
    texts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]],
    text_start: int,
    row_indexes: NDArray[np.int64],
    ends: NDArray[np.int64],
    rows: list[bytes],
) -> None:
    """Assign `rows` at `row_indexes`, whose lists have equal lengths; `ends` are their sizes without padding."""
    sizes = ends + -ends % WORD_SIZE
    width = int(sizes.max())
    selection = slice(None) if len(row_indexes) == len(prefix) else row_indexes
    matrix = np.zeros((len(row_indexes), width), np.uint8)
    matrix[:, : prefix.shape[1]] = prefix[selection]
    offset = prefix.shape[1]
    for field, column in lists:
        block = _encode_lists(field, column, selection)
        matrix[:, offset : offset + block.shape[1]] = block
        offset += block.shape[1]
    starts = np.arange(len(row_indexes)) * width + text_start
    for text_sizes, text_starts, data in texts:
        source = _expand_ranges(text_starts[selection], text_sizes[selection])
        matrix.reshape(-1)[_expand_ranges(starts, text_sizes[selection])] = data[source]
        starts += text_sizes[selection]
    _put(matrix, CHECKSUM.start, compute_checksums(matrix, sizes))
    if len(row_indexes) == len(rows) and (sizes == width).all():
        rows[:] = matrix.view(f"V{width}")[:, 0].tolist()
        return
    packed = matrix.tobytes()
    for start, i, size in zip(range(0, len(packed), width), row_indexes.tolist(), sizes.tolist(), strict=True):
        rows[i] = packed[start : start + size]


def _encode_prefix(
    layout: Layout,
    features: Mapping[str, Column],
    event_timestamps_us: NDArray[np.int64],
    created_timestamps_us: NDArray[np.int64] | None,
    dictionaries: Dictionaries,
) -> NDArray[np.uint8]:
    """Return header, null mask and fixed fields, [n, prefix size]."""
    count = len(event_timestamps_us)
    if created_timestamps_us is None:
        created_timestamps_us = np.full(count, NO_CREATED_TIMESTAMP)
    prefix = np.zeros((count, layout.prefix_size), np.uint8)
    _put(prefix, 0, event_timestamps_us.astype("<i8"))
    _put(prefix, 8, created_timestamps_us.astype("<i8"))
    _put(prefix, 16, np.full(count, layout.fingerprint, "<u4"))
    for bit, field in enumerate(layout.fields):
        column = features[field.name]
        missing = _find_missing(column)
        if missing is not None:
            prefix[:, HEADER_SIZE + bit // 8] |= missing.astype(np.uint8) << np.uint8(bit % 8)
        if field.form == "code":
            _put(prefix, layout.offsets[field.name], _encode_codes(field, column, dictionaries))
        elif field.form in ("number", "vector"):
            values = column.values if column.values.size else np.zeros(field.shape(count), field.number)
            if missing is not None:
                values = values.copy()
                values[missing] = 0
            _put(prefix, layout.offsets[field.name], _encode_numbers(field, values))
    return prefix


def _put(matrix: NDArray[np.uint8], offset: int, values: NDArray[Any]) -> None:
    """Write values [n] or bytes [n, size] into the matrix from column `offset` on."""
    if values.dtype != np.uint8:
        values = np.ascontiguousarray(values).view(np.uint8)
    values = values.reshape(len(matrix), -1)
    matrix[:, offset : offset + values.shape[1]] = values


def _find_missing(column: Column) -> NDArray[np.bool_] | None:
    """Return where values are missing, [n]; None if nowhere."""
    if isinstance(column.values, np.ndarray):
        return None if column.valid is None else ~column.valid
    return np.asarray(column.values.is_null()) if column.values.null_count else None


def _encode_numbers(field: Field, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return numbers [n] or lists of one length [n, width] in their stored form, [n, bytes]."""
    if field.storage == "int8":
        scales, elements = quantization.quantize_int8(values, field.name)
        return np.concatenate([scales.astype("<f4").view(np.uint8), elements.view(np.uint8)], axis=1)
    if field.storage in ("float16", "float32"):
        values = quantization.narrow_floats(values, field.stored, field.name)
    return np.array(values, field.stored, order="C").view(np.uint8).reshape(len(values), -1)


def _encode_codes(field: Field, column: Column, dictionaries: Dictionaries) -> NDArray[np.uint16]:
    """Return the code of each text, [n]; 0 where missing."""
    encoded = column.values if isinstance(column.values.type, pa.DictionaryType) else column.values.dictionary_encode()
    code_of_text = {text: code for code, text in enumerate(dictionaries.get(field.name, ()))}
    texts = encoded.dictionary.to_pylist()
    unknown = [text for text in texts if text not in code_of_text]
    if unknown:
        raise InvalidInputError(
            f"feature `{field.name}`: the dictionary of its {len(code_of_text):,} texts lacks {unknown[0]!r}; register "
            "the texts before rows are encoded"
        )
    codes = np.array([*(code_of_text[text] for text in texts), 0], np.uint16)
    return codes[np.asarray(encoded.indices.fill_null(len(codes) - 1))]


def _count_elements(column: Column) -> NDArray[np.int64]:
    """Return the length of each list, [n]; 0 where missing."""
    if isinstance(column.values, np.ndarray):
        valid = np.ones(len(column), np.bool_) if column.valid is None else column.valid
        return valid * column.values.shape[1]
    return np.asarray(pc.list_value_length(column.values).fill_null(0)).astype(np.int64)


def _list_size(field: Field, elements: int) -> int:
    """Return the bytes of a list of so many elements."""
    return field.scale_size + elements * field.stored.itemsize if elements else 0


def _encode_lists(field: Field, column: Column, rows: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
    """Return the lists of some rows, all of one length, in their stored form, [m, bytes]."""
    if isinstance(column.values, np.ndarray):
        lists = column.values[rows]
        if column.valid is not None and not column.valid[rows].all():
            lists = lists[:, :0]
    else:
        part = column.values if isinstance(rows, slice) else column.values.take(pa.array(rows))
        element = Field(field.name, field.base)
        lists = columns.from_arrow(element, part.flatten()).values.reshape(len(part), -1)
    return _encode_numbers(field, lists) if lists.shape[1] else np.empty((len(lists), 0), np.uint8)


def _encode_bytes(field: Field, column: Column) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Return the size [n] and the start [n] of each value in the bytes of all; a missing value has size 0."""
    values = column.values.cast(pa.binary()) if not field.is_list else _join_items(column.values)
    if values.null_count:
        values = values.fill_null(b"")
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int32, len(values) + 1, 4 * values.offset).astype(np.int64)
    return np.diff(ends), ends[:-1], np.frombuffer(data or b"", np.uint8)


def _join_items(lists: pa.Array) -> pa.Array:
    """Return each list of texts as one value: the count, the lengths and the bytes of its items; b"" where missing."""
    items = lists.flatten().cast(pa.binary())
    lengths = np.asarray(pc.binary_length(items)).astype("<u4")
    text_ends = np.concatenate([[0], lengths.cumsum(dtype=np.int64)]).tolist()
    counts = np.asarray(pc.list_value_length(lists).fill_null(0))
    heads, tables, texts = counts.astype("<u4").tobytes(), lengths.tobytes(), b"".join(items.to_pylist())
    joined: list[bytes] = []
    for i, (count, end, is_valid) in enumerate(
        zip(counts.tolist(), counts.cumsum().tolist(), lists.is_valid().to_pylist(), strict=True)
    ):
        start = end - count
        text = heads[4 * i : 4 * i + 4] + tables[4 * start : 4 * end] + texts[text_ends[start] : text_ends[end]]
        joined.append(text if is_valid else b"")
    return pa.array(joined, pa.binary())


def _expand_ranges(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return starts[0], starts[0] + 1, ... (sizes[0] numbers), then starts[1], ..."""
    indexes = np.repeat(starts - (sizes.cumsum() - sizes), sizes)
    indexes += np.arange(len(indexes))
    return indexes.astype(np.int64, copy=False)


def _group_equal_rows(counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return row indexes in groups of equal rows of `counts` [n, lists]."""
    if (counts == counts[0]).all():
        return [np.arange(len(counts))]
    _, group = np.unique(counts, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
