"""Take rows by number: from a table too large for memory, and into columns of vectors without an object per value."""

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
"""Vectors are written out in chunks of about this size: below Arrow's limit of 2**31 values a list array, and small
enough that the allocator reuses what a consumer has let go."""
CHUNK_ROWS = 1_000_000
"""Anything but vectors is taken this many rows at a time."""


def take_rows(
    table: pyarrow.dataset.Dataset,
    positions: Int64,
    columns: Sequence[str],
    *,
    where: pyarrow.dataset.Expression | None = None,
) -> pa.Table:
    """The rows at ascending `positions` among those that `where` lets through."""
    scanner = scan(table, columns, where)
    return pa.Table.from_batches(_kept(scanner.to_batches(), positions), schema=scanner.projected_schema)


def take_batches(
    table: pyarrow.dataset.Dataset,
    positions: Int64,
    columns: Sequence[str],
    *,
    where: pyarrow.dataset.Expression | None = None,
) -> Iterator[pa.RecordBatch]:
    """The same, batch by batch: only some batches are ever in memory."""
    return _kept(scan(table, columns, where).to_batches(), positions)


def scan(
    table: pyarrow.dataset.Dataset, columns: Sequence[str], where: pyarrow.dataset.Expression | None = None
) -> pyarrow.dataset.Scanner:
    """The columns in the table's order, in batches of at most 16,384 rows, few of them read ahead."""
    # Read column chunks as they are decoded, not whole beforehand: half the memory beside the rows themselves.
    frugal = pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True)
    return table.scanner(
        columns=list(columns),
        filter=where,
        batch_size=16_384,
        batch_readahead=4,
        fragment_readahead=1,
        fragment_scan_options=frugal,
    )


def _kept(batches: Iterator[pa.RecordBatch], positions: Int64) -> Iterator[pa.RecordBatch]:
    offset = 0
    for batch in batches:
        first, last = np.searchsorted(positions, [offset, offset + batch.num_rows])
        if last - first == batch.num_rows:
            yield batch
        elif last > first:
            yield batch.take(pa.array(positions[first:last] - offset))
        offset += batch.num_rows


def renumber(positions: Int64, size: int) -> Int64:
    """The positions in use, ascending, of a table of `size` rows; `positions` become, in place, numbers into those.

    They may be a file mapped into memory, and are gone through block by block; -1 stays.
    """
    number = np.zeros(size + 1, dtype=np.int64)
    for block in _blocks(positions, CHUNK_ROWS):
        number[block] = 1
    number[-1] = 0  # where the -1s pointed
    used = np.flatnonzero(number)
    number[used] = np.arange(len(used))
    number[-1] = -1
    for block in _blocks(positions, CHUNK_ROWS):
        block[:] = number[block]
    return used


def is_list(type_: pa.DataType) -> bool:
    """Whether values of this type are lists: vectors, mostly."""
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def take_column(values: pa.ChunkedArray, row_index: Int64) -> pa.ChunkedArray:
    """`values` at each row number, null at -1: [rows], chunked.

    Lists of one length, which vectors are, are copied as rows of one matrix; anything else by Arrow's own `take`.
    """
    vectors = _matrix(values)
    if vectors is None:
        source = _one_chunk(values)
        pieces = [source.take(_nullable(index)) for index in _blocks(row_index, CHUNK_ROWS)]
        chunks = [chunk for piece in pieces for chunk in getattr(piece, "chunks", [piece])]
        return pa.chunked_array(chunks, type=values.type)
    matrix, number = vectors
    rows = max(1, CHUNK_BYTES // max(1, matrix.itemsize * matrix.shape[1]))
    chunks = [_vectors(matrix, number[index], values.type) for index in _blocks(row_index, rows)]
    return pa.chunked_array(chunks, type=values.type)


def take_dictionary(values: pa.ChunkedArray, row_index: Int64) -> pa.ChunkedArray:
    """The same as `column`, as indices into `values`: nothing is copied per row."""
    array = pa.DictionaryArray.from_arrays(_nullable(row_index).cast(pa.int32()), values.combine_chunks())
    return pa.chunked_array([array])


def _blocks(row_index: Int64, rows: int) -> Iterator[Int64]:
    return (row_index[start : start + rows] for start in range(0, len(row_index), rows))


def _nullable(row_index: Int64) -> pa.Array:
    return pa.array(row_index, mask=row_index < 0)


def _one_chunk(values: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """One array where Arrow's 32-bit offsets allow it: `take` looks no chunk up then."""
    return values.combine_chunks() if values.nbytes < 2**31 else values


def _matrix(values: pa.ChunkedArray) -> tuple[np.ndarray, Int64] | None:
    """Vectors as ([vectors, dim], [values + 1] the vector of each value, -1 for null and for number -1).

    None where the values are no lists of numbers, differ in length, or hold a null inside.
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
    if len(lengths) != 1 or any(chunk.null_count for chunk in flat):
        return None
    numbers = [chunk.to_numpy() for chunk in flat]
    matrix = (numbers[0] if len(numbers) == 1 else np.concatenate(numbers)).reshape(-1, lengths.pop())
    if len(matrix) != present.sum():  # vectors of no length
        return None
    number = np.append(np.where(present, np.cumsum(present) - 1, -1), -1)
    return matrix, number


def _vectors(matrix: np.ndarray, number: Int64, type_: pa.DataType) -> pa.Array:
    present = number >= 0
    if pa.types.is_fixed_size_list(type_):
        flat = pa.array(np.take(matrix, number, axis=0).ravel(), type=type_.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=type_, mask=pa.array(~present))
    flat = pa.array(np.take(matrix, number[present], axis=0).ravel(), type=type_.value_type)
    offsets = np.zeros(len(number) + 1, dtype=np.int32)
    np.cumsum(present, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets * matrix.shape[1]), flat, type=type_, mask=pa.array(~present))


def to_matrix(lists: pa.Array | pa.ChunkedArray, width: int | None = None) -> NDArray[np.float32]:
    """A column of lists of one length as float32 [n, width], NaN rows where it is null.

    Args:
        width: of the lists; None for whatever they have, and 1 where there is none.

    Raises:
        InvalidInputError: lists of another length, or of several.
    """
    lengths = pc.unique(pc.list_value_length(lists).drop_null()).to_pylist()
    wanted = width if width is not None else (lengths or [1])[0]
    if any(length != wanted for length in lengths):
        raise InvalidInputError(
            f"vectors of {sorted(lengths)} numbers where {wanted} were expected: encode and tag again"
        )
    return _fill_rows(lists, np.full((len(lists), wanted), np.nan, np.float32))


def to_widest_matrix(lists: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of lists as float64 [n, width of the longest], NaN rows where it is null or shorter: what is judged may
    be anything."""
    lengths = np.asarray(pc.list_value_length(lists).fill_null(0))
    width = int(lengths.max(initial=0))
    found = np.full((len(lists), width), np.nan)
    whole = lengths == width
    if width:
        found[whole] = _fill_rows(lists.filter(pa.array(whole)), found[whole])
    return found


def _fill_rows(lists: pa.Array | pa.ChunkedArray, rows: NDArray[Any]) -> NDArray[Any]:
    """`rows` [n, width] with the lists that are there written over them."""
    end = 0
    for chunk in lists.chunks if isinstance(lists, pa.ChunkedArray) else [lists]:
        begin, end = end, end + len(chunk)
        there = chunk.is_valid().to_numpy(zero_copy_only=False)
        flat = chunk.flatten().to_numpy(zero_copy_only=False)  # without the lists that are null
        rows[begin:end][there] = flat.reshape(int(there.sum()), rows.shape[1])
    return rows


def matrix_to_lists(matrix: NDArray[Any]) -> pa.ListArray:
    """Return the rows of a matrix [n, width] as n lists of its dtype; null where the first element is NaN.

    Raises:
        InvalidInputError: there are more than 2**31 - 1 elements, the most that one Arrow list array holds.
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
