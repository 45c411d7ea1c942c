"""Cut a table that is too long to hold into ranges of its first key, by which the rows asked about are cut as well."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo.arrow import take
from feature_repo.errors import VitrineError

SAMPLE = 100_000
"""Keys looked at to find bounds between ranges of about equal size."""
BLOCK_ROWS = 1_000_000


@dataclass(frozen=True)
class KeyRange:
    """The keys `low <= key < high`; None is no bound. Null lies in no range but the unbounded one."""

    low: pa.Scalar | None = None
    high: pa.Scalar | None = None

    @property
    def unbounded(self) -> bool:
        """Whether every key lies within."""
        return self.low is None and self.high is None

    def mask(self, keys: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """[rows] whether each key lies within."""
        inside = np.ones(len(keys), dtype=bool)
        if self.unbounded:
            return inside
        if keys.null_count == len(keys):
            return ~inside
        plain = keys.cast(keys.type.value_type) if pa.types.is_dictionary(keys.type) else keys
        try:
            if self.low is not None:
                inside &= pc.greater_equal(plain, self.low).fill_null(False).to_numpy()
            if self.high is not None:
                inside &= pc.less(plain, self.high).fill_null(False).to_numpy()
        except pa.ArrowException as error:
            raise VitrineError(
                f"a join key of type {plain.type} cannot be compared with the table's: {error}"
            ) from error
        return inside


def split_by_key(table: pyarrow.dataset.Dataset, key: str, rows: int) -> list[KeyRange]:
    """Ranges that cover every key, each of about `rows` rows of the table or fewer.

    A key that has more rows than that by itself is in one range, for it cannot be cut.
    """
    total = table.count_rows()
    if total <= rows:
        return [KeyRange()]
    every = max(1, total // SAMPLE)
    pieces: list[pa.ChunkedArray] = []
    offset = 0
    for block in read_blocks(table, [key], BLOCK_ROWS):
        pieces.append(block[key].take(pa.array(np.arange(-offset % every, len(block), every))))
        offset += len(block)
    sample = pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks]).drop_null()
    sample = sample.take(pc.sort_indices(sample))
    parts = -(-total // rows)
    at = [len(sample) * part // parts for part in range(1, parts)] if len(sample) else []
    bounds: list[pa.Scalar] = []
    for position in at:
        if not bounds or bounds[-1] != sample[position]:
            bounds.append(sample[position])
    return [KeyRange(low, high) for low, high in zip([None, *bounds], [*bounds, None], strict=True)]


def read_blocks(
    table: pyarrow.dataset.Dataset,
    columns: Sequence[str],
    rows: int,
    *,
    where: pyarrow.dataset.Expression | None = None,
) -> Iterator[pa.Table]:
    """The columns in the table's order, in tables of `rows` rows or some more, the last one of fewer.

    Args:
        where: which rows; None: all.
    """
    return concat_batches(take.scan(table, columns, where).to_batches(), rows)


def concat_batches(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Batches put together to tables of `rows` rows or some more, the last one of fewer."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count >= rows:
            yield pa.Table.from_batches(held)
            held, count = [], 0
    if count:
        yield pa.Table.from_batches(held)
