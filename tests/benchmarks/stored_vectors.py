"""Vectors after encoding to rows of a storage and decoding."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.field import Field
from feature_repo.online.decode import decode_rows
from feature_repo.online.encode import encode_rows
from feature_repo.online.row_format import Layout


def round_trip(vectors: NDArray[np.float32], storage: str) -> tuple[NDArray[np.float32], int]:
    """Return the vectors after encoding and decoding, and the bytes of a row."""
    field = Field("vector", "float_list", storage, vectors.shape[1])
    layout = Layout.from_fields([field])
    event = np.zeros(len(vectors), np.int64)
    rows = encode_rows(layout, {"vector": columns.from_arrow(field, to_lists(vectors))}, event, None, {})
    decoded = decode_rows(rows, {layout.fingerprint: layout}, layout.fields, {})
    return columns.to_numpy(decoded.columns["vector"]), len(rows[0])


def to_lists(vectors: NDArray[np.float32]) -> pa.Array:
    """Return each row of the matrix as a list."""
    ends = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), vectors.reshape(-1))
