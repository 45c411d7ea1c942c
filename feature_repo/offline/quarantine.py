"""Table `quarantine`: bad input, with its reason.

A row that cannot be used goes here and the rest goes on. A row that is used after a repair (a cut title, a price set
to null) leaves a note here too; its reason then ends in "kept".
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta

MAX_VALUE = 200
"""Characters of the offending value that are kept."""

_KEY = ("step", "row_id", "column", "reason", "value")


@dataclass(frozen=True)
class RejectedRow:
    """One refused row, or one repaired value of a row that was kept."""

    row_id: str
    """product_id or impression_id, else `row 17`, counted from 1."""
    column: str
    reason: str
    """From a short list, so that refusals can be counted by it; details belong in `value`."""
    value: str | None
    """As it came; None where it is null."""


def count_by_reason(rows: Sequence[RejectedRow]) -> dict[str, int]:
    """Rows by reason, the most frequent first."""
    return dict(Counter(row.reason for row in rows).most_common())


def add(settings: Settings, step: str, rows: Sequence[RejectedRow], now: datetime) -> int:
    """Write down refused rows, in one commit; what is known by step, row, column, reason and value is not repeated.

    Args:
        settings: the deployment whose table it is.
        step: the command that refused them: "catalogue", "embeddings", ...
        rows: any order, may be empty.
        now: their created timestamp, timezone-aware.

    Returns:
        How many rows were not known yet.
    """
    if not rows:
        return 0
    arriving, path = to_table(step, rows, now), settings.table(schema.QUARANTINE_TABLE)
    while True:
        turn = delta.txn_version(path, schema.QUARANTINE_TABLE)
        unknown = _unknown(arriving, path, step) if delta.exists(path) else arriving
        if not unknown.num_rows:
            return 0
        try:
            delta.append_if_version(path, unknown, schema.QUARANTINE_TABLE, turn)
        except delta.CommitConflict:
            continue  # another writer was quicker, perhaps with the same rows
        return unknown.num_rows


def _unknown(arriving: pa.Table, path: Path, step: str) -> pa.Table:
    """Those of the rows that the table does not hold yet."""
    of_these = (pc.field("step") == step) & pc.field("row_id").isin(pc.unique(arriving["row_id"]))
    known = delta.read(path, _KEY, where=of_these)
    return arriving.filter(pc.invert(pc.is_in(_keys(arriving), value_set=_keys(known))))


def to_table(step: str, rows: Sequence[RejectedRow], now: datetime) -> pa.Table:
    """Refused rows as schema.QUARANTINE, values cut to MAX_VALUE characters."""
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
    """The whole table (schema.QUARANTINE); no rows where nothing was ever refused."""
    path = settings.table(schema.QUARANTINE_TABLE)
    return delta.read(path, schema.QUARANTINE.names) if delta.exists(path) else schema.QUARANTINE.empty_table()


def _keys(rows: pa.Table) -> pa.ChunkedArray:
    """One string per row; a null value differs from every text."""
    parts = [pc.cast(rows[name], pa.string()) for name in _KEY]
    return pc.binary_join_element_wise(*parts, "\x1f", null_handling="replace", null_replacement="\x00")
