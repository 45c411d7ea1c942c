"""Columns of lists as matrices."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.errors import VitrineError


def matrix(lists: pa.Array | pa.ChunkedArray, width: int | None = None) -> NDArray[np.float32]:
    """A column of lists of one length as float32 [n, width], NaN rows where it is null.

    Args:
        width: of the lists; None for whatever they have, and 1 where there is none.

    Raises:
        VitrineError: lists of another length, or of several.
    """
    lengths = pc.unique(pc.list_value_length(lists).drop_null()).to_pylist()
    wanted = width if width is not None else (lengths or [1])[0]
    if any(length != wanted for length in lengths):
        raise VitrineError(f"vectors of {sorted(lengths)} numbers where {wanted} were expected: encode and tag again")
    return _filled(lists, np.full((len(lists), wanted), np.nan, np.float32))


def longest(lists: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of lists as float64 [n, width of the longest], NaN rows where it is null or shorter: what is judged may
    be anything."""
    lengths = np.asarray(pc.list_value_length(lists).fill_null(0))
    width = int(lengths.max(initial=0))
    found = np.full((len(lists), width), np.nan)
    whole = lengths == width
    if width:
        found[whole] = _filled(lists.filter(pa.array(whole)), found[whole])
    return found


def _filled(lists: pa.Array | pa.ChunkedArray, rows: NDArray[Any]) -> NDArray[Any]:
    """`rows` [n, width] with the lists that are there written over them."""
    end = 0
    for chunk in lists.chunks if isinstance(lists, pa.ChunkedArray) else [lists]:
        begin, end = end, end + len(chunk)
        there = chunk.is_valid().to_numpy(zero_copy_only=False)
        flat = chunk.flatten().to_numpy(zero_copy_only=False)  # without the lists that are null
        rows[begin:end][there] = flat.reshape(int(there.sum()), rows.shape[1])
    return rows
