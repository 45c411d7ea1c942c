"""Split a table that does not fit in memory into ranges of its first key; read a table in blocks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo.arrow import take
from feature_repo.errors import InvalidInputError
from feature_repo.offline.key_encoding import plain_keys

SAMPLE_SIZE = 100_000
"""Keys sampled to find bounds between ranges of about equal size."""
BLOCK_ROWS = 1_000_000


@dataclass(frozen=True)
class KeyRange:
    """The keys with `low <= key < high`. A null key is only in the range without bounds."""

    low: pa.Scalar | None = None
    """The lower bound, inclusive; None for no lower bound."""
    high: pa.Scalar | None = None
    """The upper bound, exclusive; None for no upper bound."""

    @property
    def is_unbounded(self) -> bool:
        """Whether the range has no bound on either side, and so holds every key, null too."""
        return self.low is None and self.high is None

    def contains(self, keys: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Return bool [n]: whether each key is in the range.

        Args:
            keys: [n] keys, of a type that can be compared with the bounds; may be dictionary-encoded or all null.

        Raises:
            InvalidInputError: the keys cannot be compared with the bounds.
        """
        inside = np.ones(len(keys), dtype=bool)
        if self.is_unbounded:
            return inside
        if keys.null_count == len(keys):
            return ~inside
        plain = plain_keys(keys)  # keys that are one for the join are in one range
        try:
            if self.low is not None:
                inside &= pc.greater_equal(plain, self.low).fill_null(False).to_numpy()
            if self.high is not None:
                inside &= pc.less(plain, self.high).fill_null(False).to_numpy()
        except pa.ArrowException as error:
            raise InvalidInputError(
                f"a join key of type {plain.type} cannot be compared with the table's key: {error}"
            ) from error
        return inside


def split_by_key(table: pyarrow.dataset.Dataset, key: str, rows: int) -> list[KeyRange]:
    """Return ranges, in ascending order, that together cover every key and hold about `rows` rows each.

    There is at least one range. The bounds come from a sample of the keys. A single key with more rows than `rows`
    stays in one range. Rows with a null key are in none of several ranges.

    Args:
        table: the table.
        key: name of the key column.
        rows: rows of the table per range, inclusive: a table of this many rows or fewer has one unbounded range.
    """
    total = table.count_rows()
    if total <= rows:
        return [KeyRange()]
    step = max(1, total // SAMPLE_SIZE)
    pieces: list[pa.ChunkedArray] = []
    offset = 0
    for block in read_blocks(table, [key], BLOCK_ROWS):
        pieces.append(block[key].take(pa.array(np.arange(-offset % step, len(block), step))))
        offset += len(block)
    sample = pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks]).drop_null()
    sample = sample.take(pc.sort_indices(sample))
    range_count = -(-total // rows)
    quantiles = [len(sample) * part // range_count for part in range(1, range_count)] if len(sample) else []
    bounds: list[pa.Scalar] = []
    for position in quantiles:
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
    """Yield columns in the table's order, in tables of at least `rows` rows; the last one may be smaller.

    A table without rows yields nothing. A block exceeds `rows` by less than one Arrow batch (16,384 rows).

    Args:
        table: the table.
        columns: the columns to read.
        rows: the smallest number of rows per block.
        where: filter; None selects all rows.
    """
    return concat_batches(take.scan(table, columns, where).to_batches(), rows)


def concat_batches(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Yield batches, in their order, combined into tables of at least `rows` rows; the last one may be smaller.

    No batch is split, and nothing is copied. Batches without any rows yield nothing.

    Args:
        batches: batches of one schema.
        rows: the smallest number of rows per table, at least 1.
    """
    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        pending.append(batch)
        count += batch.num_rows
        if count >= rows:
            yield pa.Table.from_batches(pending)
            pending, count = [], 0
    if count:
        yield pa.Table.from_batches(pending)
