"""What leaves a Delta table, and when: corrected versions, forgotten products and users, files nobody refers to.

Tables only grow: a correction is a new row with a later created timestamp. So a training set can be made again as it
was at any moment T, by looking at rows created before T, until the rows that were corrected since are dropped. That is
what `drop_corrected` does, for rows corrected before a given moment (now minus the retention); it leaves that moment
on the table, and what would need older rows is refused instead of answered differently.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from feature_repo.offline import asof, delta

KEPT_SINCE = "vitrine.kept_since"
"""The table property that holds the moment, ISO 8601."""
LOG_DAYS = 30
"""How long Delta's log keeps what it says of commits, where the table's `delta.logRetentionDuration` says nothing."""


def read_kept_since(path: Path) -> datetime | None:
    """Rows that were corrected before this moment may be gone from the table; None if all are still there."""
    mark = delta.open_table(path).metadata().configuration.get(KEPT_SINCE)
    return datetime.fromisoformat(mark) if mark else None


def drop_corrected(path: Path, *, keys: Sequence[str], event: str, created: str, before: datetime) -> int:
    """Drop rows for whose key and event time there is a row created later, and before `before`; returns how many.

    No as-of join sees such a row, unless it asks for what was known at a moment earlier than `before`. Rows whose
    created timestamp is null stay. Appends may go on meanwhile.
    """

    def drop() -> int:
        table = delta.open_table(path)
        corrected = _corrected(table, path, keys, event, created, before)
        _leave_mark(table, before)
        if not len(corrected):
            return 0
        same = " AND ".join(f'kept."{column}" = gone."{column}"' for column in corrected.column_names)
        corrected = corrected.group_by(corrected.column_names).aggregate([])
        merge = table.merge(corrected, predicate=same, source_alias="gone", target_alias="kept")
        return int(merge.when_matched_delete().execute()["num_target_rows_deleted"])

    return delta.commit_with_retries(path, drop)


def count_corrected(path: Path, *, keys: Sequence[str], event: str, created: str, before: datetime) -> int:
    """Return how many rows `drop_corrected` would drop."""
    return len(_corrected(delta.open_table(path), path, keys, event, created, before))


def count_rows(path: Path, values: Mapping[str, Sequence[str]]) -> int:
    """Return how many rows `forget` would delete, called for each column of `values` that the table has."""
    dataset = delta.open_dataset(path)
    columns = [column for column, ids in values.items() if ids and column in dataset.schema.names]
    conditions = [pc.field(column).cast(pa.string()).isin(list(values[column])) for column in columns]
    return dataset.count_rows(filter=reduce(or_, conditions)) if conditions else 0


def forget(path: Path, column: str, values: Sequence[str | int]) -> int:
    """Delete the rows of some products or users, one commit; returns how many.

    No reader that opens the table from now on sees them. Their bytes leave the disk at the next `vacuum` whose grace
    has passed; the log names them for LOG_DAYS more (this deletion's condition, the least and greatest ids of files),
    and until the next `vacuum` then.
    """
    if not values:
        return 0
    quoted = (str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'" for value in values)
    predicate = f'"{column}" IN ({", ".join(quoted)})'
    return delta.commit_with_retries(path, lambda: int(delta.open_table(path).delete(predicate)["num_deleted_rows"]))


def compact(path: Path) -> None:
    """Join small files into larger ones; no row changes."""
    delta.commit_with_retries(path, lambda: delta.open_table(path).optimize.compact())


def vacuum(path: Path, *, grace: timedelta, dry_run: bool = False) -> int:
    """Remove files that no current row lies in, and what the log says of LOG_DAYS ago and before; returns how many.

    Args:
        grace: leave files that were let go, or written and never committed, less than this long ago: a reader that
            opened the table before, or a writer that has not committed yet, still needs them. In whole hours,
            rounded up.
        dry_run: only count the files.
    """
    hours = -(-grace // timedelta(hours=1))
    table = delta.open_table(path)
    removed = len(table.vacuum(retention_hours=hours, enforce_retention_duration=False, dry_run=dry_run, full=True))
    if not dry_run:
        delta.commit_with_retries(path, lambda: _shorten_log(delta.open_table(path)))
    return removed


def _shorten_log(table: DeltaTable) -> None:
    """Older entries may go once a checkpoint says all that they add up to."""
    table.create_checkpoint()
    table.cleanup_metadata()


def _corrected(
    table: DeltaTable, path: Path, keys: Sequence[str], event: str, created: str, before: datetime
) -> pa.Table:
    """The key, event and created timestamp of each row that a later one replaced before `before`."""
    rows = delta.open_version(table, path).to_table(columns=[*keys, event, created])
    versions = asof.index_versions([rows[key] for key in keys], rows[event], rows[created], created_before=before)
    if not len(versions.row):
        return rows.slice(0, 0)
    first_of_key = np.zeros(len(versions.row), dtype=bool)
    first_of_key[versions.starts[:-1][np.diff(versions.starts) > 0]] = True
    first_of_moment = first_of_key | (np.diff(versions.event, prepend=versions.event[0]) != 0)
    lasts = np.append(np.flatnonzero(first_of_moment)[1:], len(versions.row)) - 1  # of one moment, the last created
    corrected = versions.created < versions.created[lasts[np.cumsum(first_of_moment) - 1]]
    return rows.take(pa.array(versions.row[corrected]))


def _leave_mark(table: DeltaTable, before: datetime) -> None:
    mark = table.metadata().configuration.get(KEPT_SINCE)
    if mark is None or datetime.fromisoformat(mark) < before:
        table.alter.set_table_properties({KEPT_SINCE: before.isoformat()}, raise_if_not_exists=False)
