"""Table `quarantine`: rejected input rows with the reason.

A row that cannot be used is written here and the other rows are processed. A row that is used after a repair (a title
cut to its maximum, an invalid price dropped) leaves a note here too; the reason of a note ends in "kept".
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.location import Location
from feature_repo.offline import delta

MAX_VALUE = 200
"""Characters of the offending value that are stored."""

_KEY = ("step", "row_id", "column", "reason", "value")


@dataclass(frozen=True)
class RejectedRow:
    """One rejected row, or one repaired value of a row that was kept."""

    row_id: str
    """product_id or impression_id; `row 17`, counted from 1, if the row has none."""
    column: str
    """The input column that holds the value."""
    reason: str
    """One of a few fixed texts, so that rejections can be counted by reason. Details belong in `value`."""
    value: str | None
    """The value as it was read; None if it is null."""


def count_by_reason(rows: Sequence[RejectedRow]) -> dict[str, int]:
    """Return reason -> number of rows, the most frequent first; of equal numbers, the one that came first in `rows`.

    Empty if there are no rows.
    """
    return dict(Counter(row.reason for row in rows).most_common())


def add(settings: Settings, step: str, rows: Sequence[RejectedRow], now: datetime) -> int:
    """Add rows in one commit. Rows that are already in the table are skipped; it is created if it does not exist.

    Two rows are the same if step, id, column, reason and value, cut to MAX_VALUE characters, are equal. A row that
    `rows` holds twice is added twice.

    Args:
        settings: the deployment.
        step: the command that rejected the rows: "catalogue", "embeddings", ...
        rows: rows in any order; may be empty.
        now: the created timestamp, with a time zone.

    Returns:
        The number of rows added; 0 without a commit if all are there already.

    Raises:
        ConflictError: the commit was lost to deletions or compactions too often.
        UnavailableError: the commit cannot be written.
        CorruptDataError: the table cannot be read.
    """
    if not rows:
        return 0
    table, path = to_table(step, rows, now), settings.table(schema.QUARANTINE_TABLE)
    while True:
        version = delta.txn_version(path, schema.QUARANTINE_TABLE)
        new = _select_new(table, path, step) if delta.exists(path) else table
        if not new.num_rows:
            return 0
        try:
            delta.append_if_version(path, new, schema.QUARANTINE_TABLE, version)
        except delta.CommitConflictError:
            continue  # the other writer may have added the same rows
        return new.num_rows


def to_table(step: str, rows: Sequence[RejectedRow], now: datetime) -> pa.Table:
    """Convert rows, in their order, to a table of schema.QUARANTINE. Values are cut to MAX_VALUE characters.

    Args:
        step: the command that rejected the rows: "catalogue", "embeddings", ...
        rows: rows in any order; may be empty.
        now: the created timestamp, with a time zone.
    """
    return pa.table(
        {
            "step": [step] * len(rows),
            "row_id": [row.row_id for row in rows],
            "column": [row.column for row in rows],
            "reason": [row.reason for row in rows],
            "value": [None if row.value is None else row.value[:MAX_VALUE] for row in rows],
            schema.CREATED_TIMESTAMP: [now] * len(rows),
        },
        schema=schema.QUARANTINE,
    )


def read(settings: Settings) -> pa.Table:
    """Read the whole table (schema.QUARANTINE), in no particular order; no rows if there is no table yet.

    Raises:
        CorruptDataError: the table cannot be read.
    """
    path = settings.table(schema.QUARANTINE_TABLE)
    return delta.read(path, schema.QUARANTINE.names) if delta.exists(path) else schema.QUARANTINE.empty_table()


def select_latest(rows: pa.Table, step: str | None = None) -> pa.Table:
    """Return the rows of one step, or of all steps, the latest first.

    Args:
        rows: rows of schema.QUARANTINE.
        step: the command that rejected them; None for all.
    """
    chosen = rows if step is None else rows.filter(pc.equal(rows["step"], step))
    return chosen.sort_by([(schema.CREATED_TIMESTAMP, "descending"), ("step", "ascending"), ("row_id", "ascending")])


def count_by_cause(rows: pa.Table, step: str | None = None) -> dict[tuple[str, str, str], int]:
    """Return (step, column, reason) -> number of rows, the most frequent first; of equal numbers in the order of text.

    Args:
        rows: rows of schema.QUARANTINE.
        step: count only this step's rows; None: all.
    """
    chosen = select_latest(rows, step).select(["step", "column", "reason"])
    counts = Counter(zip(*(column.to_pylist() for column in chosen.columns), strict=True))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _select_new(rows: pa.Table, path: Location, step: str) -> pa.Table:
    """Return the rows that the table does not hold yet."""
    same_ids = (pc.field("step") == step) & pc.field("row_id").isin(pc.unique(rows["row_id"]))
    stored = delta.read(path, _KEY, where=same_ids)
    return rows.filter(pc.invert(pc.is_in(_join_keys(rows), value_set=_join_keys(stored))))


def _join_keys(rows: pa.Table) -> pa.ChunkedArray:
    """Return one string per row, in which a null value differs from every text."""
    parts = [pc.cast(rows[name], pa.string()) for name in _KEY]
    return pc.binary_join_element_wise(*parts, "\x1f", null_handling="replace", null_replacement="\x00")
