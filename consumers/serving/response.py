"""What was read, as Arrow.

Of the candidates one batch, a row for each in the order asked:

    product_id                   string
    <view>__<feature>            of each feature: null where missing; vectors as fixed_size_list<float>[width], of which
                                 not one row being there as list<float>: their width is not known then
    user_product_affinity__<name>  float32, where the service has that view: how close candidate and user are
    status__<view>               uint8: 0 present, 1 stale, 2 absent, 3 failed (damaged, or of an unknown layout)
    event_timestamp__<view>      timestamp[us, UTC]: when the row was so; null where there is none

Of the user's own features (views that have no `product_id`) a batch of one row with the same columns but the first, for
they are the same for all candidates. No value of a vector becomes a Python object on its way.
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
"""What HTTP calls what `to_ipc` gives."""
AFFINITY = "user_product_affinity"
STATUS = "status__"
STATUS_WORDS = tuple(status.name.lower() for status in sorted(Status))
"""Of each status by its number."""
EVENT_TIMESTAMP = "event_timestamp__"
_ONE = np.zeros(1, np.int64)
_STATUS_METADATA = {str(number): word for number, word in enumerate(STATUS_WORDS)}
_MOMENT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Answer:
    """What goes back to the caller."""

    candidates: pa.RecordBatch
    user: pa.RecordBatch | None
    """Of one row; None if the service has no features of the user alone."""


def answer(
    block: FeatureBatch,
    product_ids: Sequence[str],
    of_user: Collection[str],
    affinity: Mapping[str, NDArray[np.float32]],
) -> Answer:
    """A block as Arrow.

    Args:
        block: fetched with full feature names.
        product_ids: of its rows.
        of_user: the views of which all rows are the same user's.
        affinity: [n] of each name, NaN where nothing is known; empty if the service has none.
    """
    candidates, user = _Batch(), _Batch()
    candidates.add(PRODUCT_ID, pa.array(product_ids, pa.string()))
    for name, view in block.views.items():
        if name in of_user:
            user.add_view(name, view, None if len(view.rows.status) == 1 else _ONE)
        else:
            candidates.add_view(name, view, view.place)
    for name, array in zip(affinity, _floats(list(affinity.values())), strict=True):
        candidates.add(f"{AFFINITY}__{name}", array)
    return Answer(candidates.make(), user.make() if user.arrays else None)


def to_ipc(batch: pa.RecordBatch) -> pa.Buffer:
    """A batch as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


class _Batch:
    """Columns on their way into a batch."""

    def __init__(self) -> None:
        self.arrays: list[pa.Array] = []
        self.fields: list[pa.Field] = []

    def add(self, name: str, array: pa.Array) -> None:
        self.arrays.append(array)
        self.fields.append(pa.field(name, array.type))

    def add_view(self, name: str, view: ViewRows, place: NDArray[np.int64] | None) -> None:
        """A view's features, status and times; `place` says which of its distinct entities each row is."""
        for feature in view.names:
            column = view.column(feature)
            self.add(feature, _array(column if place is None else columns.take(column, place)))
        status, moments = view.rows.status, view.rows.event_timestamp_us
        if place is not None:
            status, moments = status[place], moments[place]
        self.arrays.append(columns.array_of(status, pa.uint8()))
        self.fields.append(_status_field(name))
        gone = status >= int(Status.ABSENT)
        self.add(EVENT_TIMESTAMP + name, columns.array_of(moments, _MOMENT, ~gone if gone.any() else None))

    def make(self) -> pa.RecordBatch:
        # Arrow looks at the columns of a struct in half of the time of those of a batch.
        return pa.RecordBatch.from_struct_array(pa.StructArray.from_arrays(self.arrays, fields=self.fields))


@lru_cache
def _status_field(view: str) -> pa.Field:
    return pa.field(STATUS + view, pa.uint8(), metadata=_STATUS_METADATA)


def _floats(columns_: Sequence[NDArray[np.float32]]) -> list[pa.Array]:
    """Float columns [n], null where NaN; slices of one buffer where none is, in a third of the time."""
    if not columns_:
        return []
    matrix = np.stack(columns_)
    if np.isnan(matrix).any():
        return [pa.array(values, from_pandas=True) for values in matrix]
    buffer, count = pa.py_buffer(matrix), matrix.shape[1]
    return [pa.Array.from_buffers(pa.float32(), count, [None, buffer], 0, i * count) for i in range(len(matrix))]


def _array(column: Column) -> pa.Array:
    if column.words is not None:
        return _texts(column.words, column)
    if isinstance(column.values, np.ndarray) and column.values.ndim == 2:
        return _vectors(column)
    return columns.to_arrow(column)


def _texts(words: Sequence[str], column: Column) -> pa.Array:
    """Dictionary codes as texts: a dictionary has up to 65,536 words, and a request would carry all of them."""
    if len(words) == 1 and column.valid is None:  # a version
        return pa.repeat(_dictionary(tuple(words))[0], len(column))
    if len(words) <= len(column):
        return _dictionary(tuple(words)).take(columns.array_of(column.values, pa.uint16(), column.valid))
    listed: list[int] = column.values.tolist()
    if column.valid is None:
        return pa.array([words[code] for code in listed], pa.string())
    there = column.valid.tolist()
    return pa.array([words[code] if known else None for code, known in zip(listed, there, strict=True)], pa.string())


@lru_cache
def _dictionary(words: tuple[str, ...]) -> pa.Array:
    return pa.array(words, pa.string())


def _vectors(column: Column) -> pa.Array:
    """Lists of numbers of one length [n, width]."""
    values: NDArray[Any] = column.values
    kind, width = columns.element_type(column.field), values.shape[1] or column.field.length
    if not width:
        return columns.to_arrow(column)
    if values.shape[1] != width:  # not one row is there
        return pa.nulls(len(values), pa.list_(kind, width))
    items = columns.array_of(values.reshape(-1), kind)
    missing = None if column.valid is None else pa.array(~column.valid)
    return pa.FixedSizeListArray.from_arrays(items, width, mask=missing)
