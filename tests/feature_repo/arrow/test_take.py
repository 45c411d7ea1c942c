"""List columns to matrices and back, compared with the same done one list at a time."""

import itertools
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.arrow.take import (
    matrix_to_lists,
    take_chunks,
    take_column,
    to_matrix,
    to_matrix_of_width,
    to_widest_matrix,
)
from feature_repo.errors import VitrineError

FLOATS = st.floats(width=32)


def chunked(rows: list[list[float] | None], cuts: list[int], fixed: int | None) -> pa.ChunkedArray:
    """The rows in chunks that end at `cuts`; lists of fixed size if it is given."""
    type_ = pa.list_(pa.float32()) if fixed is None else pa.list_(pa.float32(), fixed)
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    pieces = [pa.array(rows[begin:end], type_) for begin, end in itertools.pairwise(ends)]
    return pa.chunked_array(pieces, type_)


@given(st.data(), st.integers(1, 4), st.booleans())
def test_a_matrix_has_each_list_in_its_row_and_nan_where_there_is_none(
    data: st.DataObject, width: int, fixed: bool
) -> None:
    one = st.none() | st.lists(FLOATS, min_size=width, max_size=width)
    rows = data.draw(st.lists(one, max_size=9))
    column = chunked(rows, data.draw(st.lists(st.integers(0, 9), max_size=3)), width if fixed else None)
    expected = np.array([[np.nan] * width if row is None else row for row in rows], np.float32).reshape(-1, width)
    for found in (
        to_matrix(column, width),
        to_matrix(column) if any(rows) else expected,
        to_matrix(column.combine_chunks(), width),
    ):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


@given(st.lists(st.none() | st.lists(FLOATS, max_size=3), max_size=9), st.lists(st.integers(0, 9), max_size=3))
def test_the_longest_lists_are_kept_and_all_others_are_nan(rows: list[list[float] | None], cuts: list[int]) -> None:
    width = max((len(row) for row in rows if row is not None), default=0)
    expected = [row if row is not None and len(row) == width else [np.nan] * width for row in rows]
    found = to_widest_matrix(chunked(rows, cuts, None))
    assert found.shape == (len(rows), width)
    np.testing.assert_array_equal(found, np.array(expected, np.float64).reshape(len(rows), width))


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 100])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_chunks_have_the_rows_asked_for_and_one_size_however_the_table_is_stored(
    rows: int, step: int, tmp_path: Path
) -> None:
    for number, size in enumerate((4, 1, 6, 3)):
        start = 10 * number
        pq.write_table(pa.table({"x": range(start, start + size)}), tmp_path / f"{number}.parquet")
    table = pyarrow.dataset.dataset(sorted(tmp_path.iterdir()))
    positions = np.arange(0, 14, step)
    chunks = list(take_chunks(table, positions, ["x"], rows, batch_rows=2))
    assert [len(chunk) for chunk in chunks[:-1]] == [rows] * (len(chunks) - 1)
    assert 0 < len(chunks[-1]) <= rows
    assert pa.concat_tables(chunks)["x"].to_pylist() == table.to_table()["x"].take(positions).to_pylist()
    assert list(take_chunks(table, positions[:0], ["x"], rows)) == []


@given(st.data(), st.sampled_from([pa.list_(pa.float32()), pa.list_(pa.int64()), pa.list_(pa.null())]))
def test_lists_are_taken_by_row_number_also_if_all_are_empty(data: st.DataObject, type_: pa.DataType) -> None:
    length = 0 if pa.types.is_null(type_.value_type) else data.draw(st.integers(0, 2))
    rows = data.draw(st.lists(st.none() | st.just([1] * length) | st.just([]), max_size=6))
    row_index = np.array(data.draw(st.lists(st.integers(-1, len(rows) - 1), max_size=9)), np.int64)
    cut = data.draw(st.integers(0, len(rows)))
    column = pa.chunked_array([pa.array(rows[:cut], type_), pa.array(rows[cut:], type_)])
    taken = take_column(column, row_index)
    assert taken.type == type_
    assert taken.to_pylist() == [None if index < 0 else rows[index] for index in row_index]


def test_whole_numbers_become_floats_and_a_null_inside_a_list_nan() -> None:
    column = pa.chunked_array([[[1, None], None], [[3, 4]]], pa.list_(pa.int32()))
    expected = [[1, np.nan], [np.nan, np.nan], [3, 4]]
    np.testing.assert_array_equal(to_matrix(column), np.array(expected, np.float32))
    np.testing.assert_array_equal(to_widest_matrix(column), expected)


def test_lists_of_another_length_are_refused_and_none_at_all_are_one_wide() -> None:
    two = pa.chunked_array([[[1.0, 2.0], None], [[1.0, 2.0, 3.0]]])
    with pytest.raises(VitrineError, match=re.escape("expected vectors of 2 numbers, got [2, 3]")):
        to_matrix(two)
    with pytest.raises(VitrineError, match=re.escape("expected vectors of 4 numbers, got [2]")):
        to_matrix(two.slice(0, 2), 4)
    assert to_matrix(pa.chunked_array([[None, None]], pa.list_(pa.float32()))).shape == (2, 1)


@given(st.lists(st.none() | st.lists(FLOATS, min_size=3, max_size=3), max_size=9))
def test_a_matrix_becomes_lists_and_a_row_of_nan_null(rows: list[list[float] | None]) -> None:
    matrix = np.array([[np.nan] * 3 if row is None else row for row in rows], np.float32).reshape(-1, 3)
    lists = matrix_to_lists(matrix)
    assert lists.type == pa.list_(pa.float32())
    assert [row is None for row in lists.to_pylist()] == np.isnan(matrix[:, 0]).tolist()
    np.testing.assert_array_equal(to_matrix(lists, 3)[~np.isnan(matrix[:, 0])], matrix[~np.isnan(matrix[:, 0])])


def test_whole_numbers_become_lists_of_their_own_type() -> None:
    assert matrix_to_lists(np.array([[1, -1], [2, 3]], np.int32)).equals(
        pa.array([[1, -1], [2, 3]], pa.list_(pa.int32()))
    )


def test_lists_of_another_length_are_missing_rows() -> None:
    lists = pa.chunked_array([[[1.0, 2.0], None, [3.0], []], [[4.0, 5.0]]], pa.list_(pa.float32()))
    expected = np.array([[1, 2], [np.nan] * 2, [np.nan] * 2, [np.nan] * 2, [4, 5]], np.float32)
    np.testing.assert_array_equal(to_matrix_of_width(lists, 2), expected)
