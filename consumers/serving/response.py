"""The response: what was read from the online store, as Arrow.

The candidates are one batch with a row for each requested product, in the order of the request:

    product_id                   string
    <view>__<feature>            null where missing. Vectors are fixed_size_list<float>[width]. If no row is present,
                                 the width is unknown and the type is list<float>
    user_product_affinity__<name>  float32, if the service has that view: affinity of candidate and user
    status__<view>               uint8: 0 present, 1 stale, 2 absent, 3 failed (damaged, or in an unknown format)
    status__<view>__<feature>    likewise, only if some row was written before the view had the feature: absent there
    event_timestamp__<view>      timestamp[us, UTC] of the row; null if the row is absent or failed

A feature is null if its row is absent or failed, if the row is stale and the request does not keep stale values, or if
the row has no value of it.

The user's own features (views without `product_id`) are a batch of one row with the same columns except `product_id`,
because they are the same for all candidates. Vector values are not converted to Python objects.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.online.decode import Status
from feature_repo.online.feature_batch import FeatureBatch, ViewRows
from feature_repo.schema import PRODUCT_ID

ARROW = "application/vnd.apache.arrow.stream"
"""Media type of the result of `to_ipc`."""
MAX_MESSAGE_BYTES = 3 * 2**20
"""Longest batch in one gRPC message, before the columns' descriptions and the user's row are added."""
AFFINITY = "user_product_affinity"
STATUS = "status__"
STATUS_WORDS = tuple(status.name.lower() for status in sorted(Status))
"""Names of the statuses, by number."""
EVENT_TIMESTAMP = "event_timestamp__"
_ONE = np.zeros(1, np.int64)
_STATUS_METADATA = {str(number): word for number, word in enumerate(STATUS_WORDS)}
_TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, repr=False)
class FeatureResponse:
    """The features of one request. The module's docstring lists the columns."""

    candidates: pa.RecordBatch
    """One row for each candidate, in the order of the request."""
    user: pa.RecordBatch | None
    """One row; None if the service has no views of the user alone."""

    def __repr__(self) -> str:
        user = "no features of the user" if self.user is None else f"user: {', '.join(self.user.schema.names)}"
        candidates = f"{self.candidates.num_rows:,} candidates: {', '.join(self.candidates.schema.names)}"
        return f"FeatureResponse({candidates}; {user})"


def build_response(
    batch: FeatureBatch,
    product_ids: Sequence[str],
    user_views: Collection[str],
    affinity: Mapping[str, NDArray[np.float32]],
) -> FeatureResponse:
    """Convert a feature batch to Arrow: the candidates in n rows, the user in one row.

    Args:
        batch: n rows, fetched with full feature names.
        product_ids: [n], the products of the rows.
        user_views: names of the views that hold the same user in every row; they make the user's row. Names that the
            batch lacks are ignored.
        affinity: float32 [n] by name, NaN where unknown, which becomes null; empty if the service has no affinity.
    """
    candidates, user = _BatchBuilder(), _BatchBuilder()
    candidates.add(PRODUCT_ID, pa.array(product_ids, pa.string()))
    for name, view in batch.views.items():
        if name in user_views:
            user.add_view(name, view, None if len(view.rows.status) == 1 else _ONE)
        else:
            candidates.add_view(name, view, view.row_index)
    for name, array in zip(affinity, _float_arrays(list(affinity.values())), strict=True):
        candidates.add(f"{AFFINITY}__{name}", array)
    return FeatureResponse(candidates.build(), user.build() if user.arrays else None)


def to_ipc(batch: pa.RecordBatch) -> pa.Buffer:
    """Return a batch as a whole Arrow IPC stream: its schema, the one batch, and the end."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def split_batch(batch: pa.RecordBatch, max_bytes: int = MAX_MESSAGE_BYTES) -> list[pa.RecordBatch]:
    """Return the batch in slices of at most `max_bytes` each, in order, without copying.

    Args:
        batch: n rows. Without rows it is returned as it is.
        max_bytes: bytes of a slice's columns. A row that is longer is a slice of its own.
    """
    size = batch.nbytes
    if size <= max_bytes or batch.num_rows <= 1:
        return [batch]
    rows = max(1, batch.num_rows * max_bytes // size)
    slices = [batch.slice(start, rows) for start in range(0, batch.num_rows, rows)]
    # Texts and lists differ in length, so one slice may still be too long.
    return [part for one in slices for part in split_batch(one, max_bytes)]


class _BatchBuilder:
    """Collects the columns of a batch."""

    def __init__(self) -> None:
        self.arrays: list[pa.Array] = []
        self.fields: list[pa.Field] = []

    def add(self, name: str, array: pa.Array) -> None:
        self.arrays.append(array)
        self.fields.append(pa.field(name, array.type))

    def add_view(self, name: str, view: ViewRows, row_index: NDArray[np.int64] | None) -> None:
        """Add a view's features, then its statuses, then its event timestamps.

        The timestamp is null where the row is absent or failed. A feature that some rows were written without, because
        it is new, has a column of statuses of its own.

        Args:
            name: the view's name in the service.
            view: the rows of the distinct entities.
            row_index: [n], the entity of each row; None if row i is entity i.
        """
        for feature in view.names:
            column = view.column(feature)
            self.add(feature, _to_array(column if row_index is None else columns.take(column, row_index)))
        status, timestamps = view.rows.status, view.rows.event_timestamp_us
        if row_index is not None:
            status, timestamps = status[row_index], timestamps[row_index]
        self._add_status(name, status)
        for feature, own_name in view.names.items():
            if own_name in view.rows.unwritten:
                own = view.rows.feature_status(own_name)
                self._add_status(feature, own if row_index is None else own[row_index])
        missing = status >= int(Status.ABSENT)
        self.add(
            EVENT_TIMESTAMP + name,
            columns.numbers_to_arrow(timestamps, _TIMESTAMP, ~missing if missing.any() else None),
        )

    def _add_status(self, name: str, status: NDArray[np.uint8]) -> None:
        self.arrays.append(columns.numbers_to_arrow(status, pa.uint8()))
        self.fields.append(_status_field(name))

    def build(self) -> pa.RecordBatch:
        # Building a struct and converting it takes half the time of building the batch from its columns.
        return pa.RecordBatch.from_struct_array(pa.StructArray.from_arrays(self.arrays, fields=self.fields))


@lru_cache
def _status_field(view: str) -> pa.Field:
    return pa.field(STATUS + view, pa.uint8(), metadata=_STATUS_METADATA)


def _float_arrays(values: Sequence[NDArray[np.float32]]) -> list[pa.Array]:
    """Float columns [n], null for NaN. If there is no NaN, they are slices of one buffer: a third of the time."""
    if not values:
        return []
    matrix = np.stack(values)
    if np.isnan(matrix).any():
        return [pa.array(row, from_pandas=True) for row in matrix]
    buffer, count = pa.py_buffer(matrix), matrix.shape[1]
    return [pa.Array.from_buffers(pa.float32(), count, [None, buffer], 0, i * count) for i in range(len(matrix))]


def _to_array(column: Column) -> pa.Array:
    if column.words is not None:
        return _text_array(column.words, column)
    if isinstance(column.values, np.ndarray) and column.values.ndim == 2:
        return _vector_array(column)
    return columns.to_arrow(column)


def _text_array(words: Sequence[str], column: Column) -> pa.Array:
    """Dictionary codes as plain strings. A dictionary has up to 65,536 words, and each response would carry all."""
    if len(words) == 1 and column.valid is None:  # a version column
        return pa.repeat(_dictionary(tuple(words))[0], len(column))
    if len(words) <= len(column):
        return _dictionary(tuple(words)).take(columns.numbers_to_arrow(column.values, pa.uint16(), column.valid))
    codes: list[int] = column.values.tolist()
    if column.valid is None:
        return pa.array([words[code] for code in codes], pa.string())
    pairs = zip(codes, column.valid.tolist(), strict=True)
    return pa.array([words[code] if is_valid else None for code, is_valid in pairs], pa.string())


@lru_cache
def _dictionary(words: tuple[str, ...]) -> pa.Array:
    return pa.array(words, pa.string())


def _vector_array(column: Column) -> pa.Array:
    """Number lists of one length [n, width]."""
    values: NDArray[Any] = column.values
    kind, width = columns.element_type(column.field), values.shape[1] or column.field.length
    if not width:
        return columns.to_arrow(column)
    if values.shape[1] != width:  # no row is present
        return pa.nulls(len(values), pa.list_(kind, width))
    items = columns.numbers_to_arrow(values.reshape(-1), kind)
    missing = None if column.valid is None else pa.array(~column.valid)
    return pa.FixedSizeListArray.from_arrays(items, width, mask=missing)
