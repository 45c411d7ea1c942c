"""Rows by position, from tables larger than memory; list columns to NumPy matrices and back.

Vectors are copied as matrix rows, without a Python object per value.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo.errors import InvalidInputError

Int64 = NDArray[np.int64]

CHUNK_BYTES = 16 * 1024 * 1024
"""Approximate size of the chunks in which vectors are taken: below Arrow's limit of 2**31 elements of a list array, and
small enough that the allocator reuses chunks that a consumer has released."""
BATCH_ROWS = 16_384
"""Rows that are read at a time, unless the caller says otherwise."""
IMAGE_ROWS = 512
"""Rows with images that are read at a time: some are read ahead, and an image may have a megabyte."""
CHUNK_ROWS = 1_000_000
"""Rows per chunk of all other types."""


def take_rows(
    table: pyarrow.dataset.Dataset,
    positions: Int64,
    columns: Sequence[str],
    *,
    where: pyarrow.dataset.Expression | None = None,
) -> pa.Table:
    """Read the rows at given positions of a table.

    Args:
        table: the table.
        positions: [m] row positions, ascending and unique, counted from 0 among the rows that `where` selects. Those
            past the last row are ignored.
        columns: the columns to read. One that the table lacks raises pyarrow's ArrowInvalid.
        where: filter; None selects all rows.

    Returns:
        The m rows in the table's order, with `columns` in the given order; no rows if there are no positions.
    """
    scanner = scan(table, columns, where)
    return pa.Table.from_batches(_take_from(scanner.to_batches(), positions), schema=scanner.projected_schema)


def take_batches(
    table: pyarrow.dataset.Dataset,
    positions: Int64,
    columns: Sequence[str],
    *,
    where: pyarrow.dataset.Expression | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows at given positions of a table batch by batch, so that only a few batches are in memory.

    Args:
        table: the table.
        positions: [m] row positions, ascending and unique, counted from 0 among the rows that `where` selects. Those
            past the last row are ignored.
        columns: the columns to read. One that the table lacks raises pyarrow's ArrowInvalid.
        where: filter; None selects all rows.
        batch_rows: the largest number of rows of a batch; less than BATCH_ROWS for images.

    Yields:
        The rows in the table's order.
    """
    return _take_from(scan(table, columns, where, batch_rows=batch_rows).to_batches(), positions)


def take_chunks(
    table: pyarrow.dataset.Dataset, positions: Int64, columns: Sequence[str], rows: int, *, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.Table]:
    """Yield the rows at given positions of a table in tables of `rows` rows; the last one may have fewer.

    Args:
        table: the table.
        positions: [m] row positions, ascending and unique, counted from 0; without any, nothing is read or yielded.
        columns: the columns to read. One that the table lacks raises pyarrow's ArrowInvalid.
        rows: rows of a table, at least 1.
        batch_rows: the largest number of rows that are read at a time; IMAGE_ROWS for images.
    """
    batches: list[pa.RecordBatch] = []
    count = 0
    for batch in take_batches(table, positions, columns, batch_rows=min(rows, batch_rows)) if len(positions) else ():
        while count + len(batch) >= rows:
            first = batch.slice(0, rows - count)
            yield pa.Table.from_batches([*batches, first])
            batch, batches, count = batch.slice(len(first)), [], 0
        if len(batch):
            batches.append(batch)
            count += len(batch)
    if batches:
        yield pa.Table.from_batches(batches)


def scan(
    table: pyarrow.dataset.Dataset,
    columns: Sequence[str],
    where: pyarrow.dataset.Expression | None = None,
    *,
    batch_rows: int = BATCH_ROWS,
) -> pyarrow.dataset.Scanner:
    """Return a scanner that reads columns in the table's row order, in batches of few rows, few read ahead.

    Args:
        table: the table.
        columns: the columns to read, in the order of the result. One that the table lacks raises pyarrow's
            ArrowInvalid.
        where: filter; None selects all rows.
        batch_rows: the largest number of rows of a batch.
    """
    # Without pre-buffering, column chunks are read as they are decoded: half the memory beside the rows themselves.
    options = pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True)
    return table.scanner(
        columns=list(columns),
        filter=where,
        batch_size=batch_rows,
        batch_readahead=4,
        fragment_readahead=1,
        fragment_scan_options=options,
    )


def renumber(positions: Int64, size: int) -> Int64:
    """Replace positions, in place, by their rank among the distinct positions in use.

    Afterwards `positions[i]` is an index into the result. -1 stays -1. The array may be a memory-mapped file; it is
    processed block by block.

    Args:
        positions: [m] positions in [0, size), or -1; may repeat.
        size: number of rows of the table.

    Returns:
        int64, the distinct positions in use without -1, ascending; empty if there are none.
    """
    rank = np.zeros(size + 1, dtype=np.int64)
    for block in _blocks(positions, CHUNK_ROWS):
        rank[block] = 1
    rank[-1] = 0  # the entry that -1 refers to
    used = np.flatnonzero(rank)
    rank[used] = np.arange(len(used))
    rank[-1] = -1
    for block in _blocks(positions, CHUNK_ROWS):
        block[:] = rank[block]
    return used


def is_list(type_: pa.DataType) -> bool:
    """Return whether an Arrow type is a list, a large list or a list of fixed size, of any elements."""
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def take_column(values: pa.ChunkedArray, row_index: Int64) -> pa.ChunkedArray:
    """Return `values` at each row number, in that order; null where the row number is -1.

    Number lists of one length without inner nulls are copied as rows of a matrix; all else by Arrow's own `take`.

    Args:
        values: [k] values of any type.
        row_index: [n] row numbers in [0, k), or -1; may repeat.

    Returns:
        n values of the type of `values`, in as many chunks as needed; none if n is 0.
    """
    vectors = _as_matrix(values)
    if vectors is None:
        source = values.combine_chunks() if values.nbytes < 2**31 else values  # take is faster on one chunk
        pieces = [source.take(_nullable(index)) for index in _blocks(row_index, CHUNK_ROWS)]
        chunks = [chunk for piece in pieces for chunk in getattr(piece, "chunks", [piece])]
        return pa.chunked_array(chunks, type=values.type)
    matrix, number = vectors
    rows = max(1, CHUNK_BYTES // max(1, matrix.itemsize * matrix.shape[1]))
    chunks = [_take_lists(matrix, number[index], values.type) for index in _blocks(row_index, rows)]
    return pa.chunked_array(chunks, type=values.type)


def take_dictionary(values: pa.ChunkedArray, row_index: Int64) -> pa.ChunkedArray:
    """Return `values` at each row number as one dictionary array over `values`, so that no value is copied per row.

    The result has n rows in one chunk.

    Args:
        values: [k] values of any type; k is at most 2**31, because the codes are int32.
        row_index: [n] row numbers in [0, k), or -1, which gives null; may repeat.
    """
    array = pa.DictionaryArray.from_arrays(_nullable(row_index).cast(pa.int32()), values.combine_chunks())
    return pa.chunked_array([array])


def to_matrix(lists: pa.Array | pa.ChunkedArray, width: int | None = None) -> NDArray[np.float32]:
    """Convert a column of number lists of one length to a new float32 matrix [n, width].

    Args:
        lists: the column. A null list becomes a row of NaN, a null inside a list NaN.
        width: expected length of the lists. None: the length that they have, or 1 if all are null or n is 0.

    Raises:
        InvalidInputError: the lists differ in length, or their length is not `width`.
    """
    lengths = pc.unique(pc.list_value_length(lists).drop_null()).to_pylist()
    expected = width if width is not None else (lengths or [1])[0]
    if any(length != expected for length in lengths):
        raise InvalidInputError(
            f"expected vectors of {expected} numbers, got {sorted(lengths)}; compute them again with one encoder"
        )
    return _fill_rows(lists, np.full((len(lists), expected), np.nan, np.float32))


def to_matrix_of_width(lists: pa.Array | pa.ChunkedArray, width: int) -> NDArray[np.float32]:
    """Convert a column of number lists to a float32 matrix [n, width]; a NaN row for a null or another length."""
    has_width = np.asarray(pc.equal(pc.list_value_length(lists), width).fill_null(False))
    result = np.full((len(lists), width), np.nan, np.float32)
    result[has_width] = to_matrix(lists.filter(pa.array(has_width)), width)
    return result


def to_widest_matrix(lists: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """Convert a column of number lists of any lengths to a float64 matrix [n, length of the longest list].

    The row of a shorter list is NaN throughout: its numbers are dropped. So is the row of a null. A null inside a
    longest list is NaN. The width is 0 if no list has an element.
    """
    lengths = np.asarray(pc.list_value_length(lists).fill_null(0))
    width = int(lengths.max(initial=0))
    result = np.full((len(lists), width), np.nan)
    has_full_width = lengths == width
    if width:
        result[has_full_width] = _fill_rows(lists.filter(pa.array(has_full_width)), result[has_full_width])
    return result


def matrix_to_lists(matrix: NDArray[Any]) -> pa.ListArray:
    """Convert the rows of a matrix [n, width] to n lists of its dtype; null where the first element is NaN.

    A NaN elsewhere stays NaN. Of a matrix of integers, or of width 0, no list is null.

    Raises:
        InvalidInputError: there are more than 2**31 - 1 elements, the limit of one Arrow list array.
    """
    missing = np.isnan(matrix[:, 0]) if matrix.dtype.kind == "f" and matrix.shape[1] else np.zeros(len(matrix), bool)
    present = matrix[~missing] if missing.any() else matrix
    if present.size > np.iinfo(np.int32).max:
        raise InvalidInputError(f"{present.size:,} numbers do not fit one list array; convert fewer rows at a time")
    offsets = np.zeros(len(matrix) + 1, np.int32)
    np.cumsum(~missing, out=offsets[1:])
    items = pa.array(np.ascontiguousarray(present).reshape(-1))
    mask = pa.array(missing) if missing.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets * np.int32(matrix.shape[1])), items, mask=mask)


def _take_from(batches: Iterator[pa.RecordBatch], positions: Int64) -> Iterator[pa.RecordBatch]:
    """Yield the rows at ascending positions, counted from 0 over all batches; nothing for a batch without any."""
    offset = 0
    for batch in batches:
        first, last = np.searchsorted(positions, [offset, offset + batch.num_rows])
        if last - first == batch.num_rows:
            yield batch
        elif last > first:
            yield batch.take(pa.array(positions[first:last] - offset))
        offset += batch.num_rows


def _blocks(row_index: Int64, rows: int) -> Iterator[Int64]:
    return (row_index[start : start + rows] for start in range(0, len(row_index), rows))


def _nullable(row_index: Int64) -> pa.Array:
    """Return row numbers as an Arrow array; null where negative."""
    return pa.array(row_index, mask=row_index < 0)


def _as_matrix(values: pa.ChunkedArray) -> tuple[NDArray[Any], Int64] | None:
    """Return the present lists as a matrix [m, width] and the matrix row of each value [k + 1].

    The matrix row is -1 for a null; so is the last entry, which row number -1 refers to. None if the values are not
    number lists of one length without inner nulls.
    """
    type_ = values.type
    if not (pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_)):
        return None
    if not (pa.types.is_floating(type_.value_type) or pa.types.is_integer(type_.value_type)):
        return None
    present = np.concatenate([chunk.is_valid().to_numpy(zero_copy_only=False) for chunk in values.chunks] or [[]])
    present = present.astype(bool)
    flat = [chunk.flatten() for chunk in values.chunks]
    lengths = {length for chunk in values.chunks for length in np.unique(chunk.value_lengths().drop_null())}
    if len(lengths) != 1 or lengths == {0} or any(chunk.null_count for chunk in flat):
        return None
    numbers = [chunk.to_numpy() for chunk in flat]
    matrix = (numbers[0] if len(numbers) == 1 else np.concatenate(numbers)).reshape(-1, lengths.pop())
    number = np.append(np.where(present, np.cumsum(present) - 1, -1), -1)
    return matrix, number


def _take_lists(matrix: NDArray[Any], number: Int64, type_: pa.DataType) -> pa.Array:
    """Return the matrix rows with these numbers as lists of `type_`; null where the number is -1."""
    present = number >= 0
    if pa.types.is_fixed_size_list(type_):
        flat = pa.array(np.take(matrix, number, axis=0).ravel(), type=type_.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=type_, mask=pa.array(~present))
    flat = pa.array(np.take(matrix, number[present], axis=0).ravel(), type=type_.value_type)
    offsets = np.zeros(len(number) + 1, dtype=np.int32)
    np.cumsum(present, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets * matrix.shape[1]), flat, type=type_, mask=pa.array(~present))


def _fill_rows(lists: pa.Array | pa.ChunkedArray, rows: NDArray[Any]) -> NDArray[Any]:
    """Write the present lists into `rows` [n, width] and return it."""
    end = 0
    for chunk in lists.chunks if isinstance(lists, pa.ChunkedArray) else [lists]:
        begin, end = end, end + len(chunk)
        present = chunk.is_valid().to_numpy(zero_copy_only=False)
        flat = chunk.flatten().to_numpy(zero_copy_only=False)  # holds no elements of null lists
        rows[begin:end][present] = flat.reshape(int(present.sum()), rows.shape[1])
    return rows
