"""Removal of rows: corrected versions, deleted products and users, files that no version needs.

Tables only grow: a correction is a new row with a later created timestamp. So a training set can be built again as it
was at any time T, from rows created before T, as long as corrected rows are kept. `drop_corrected` removes rows that
were corrected before a given time (now minus the retention). It stores that time on the table, and a join that would
need older rows raises an error instead of returning other values.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import or_

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, WriterProperties

from feature_repo.location import Location
from feature_repo.offline import asof, delta, delta_columns, delta_files, delta_log
from feature_repo.offline.storage import open_storage, translate_errors

KEPT_SINCE = "vitrine.kept_since"
"""Name of the table property that holds the time, in ISO 8601."""
SMALL_BYTES, SMALL_FILES = 1 << 20, 16
"""Size in bytes below which a file is small, and the number of small files that `compact_small_files` merges."""
COMPACTED_BYTES = 8 << 20
"""Size in bytes of a file that `compact_small_files` writes, at most. It bounds what is written again and again."""


def read_kept_since(path: Location) -> datetime | None:
    """Return the time before which corrected rows may have been dropped from a table.

    None if `drop_corrected` was never called for the table.

    Raises:
        CorruptDataError: there is no table at `path`, or its log cannot be read.
    """
    value = delta.open_table(path).metadata().configuration.get(KEPT_SINCE)
    return datetime.fromisoformat(value) if value else None


def drop_corrected(path: Location, *, keys: Sequence[str], event: str | None, created: str, before: datetime) -> int:
    """Drop rows that were corrected before a given time, and store that time on the table.

    A row is corrected if another row with the same key and event timestamp was created later. An as-of join does not
    use such a row unless it asks for the state at a time earlier than `before`. Rows with a null key, event timestamp
    or created timestamp stay; so do all of several rows that were created last at the same time. Other writers may
    append meanwhile. The time is stored even if no row is dropped, unless a later one is stored already. The bytes of
    dropped rows stay on disk until `vacuum`.

    Args:
        path: the table's location.
        keys: columns of the key.
        event: name of the event timestamp column; None if there is none: all rows of a key are of one moment.
        created: name of the created timestamp column.
        before: the correcting row must have been created before this time, exclusive. With a time zone.

    Returns:
        The number of rows dropped.

    Raises:
        ConflictError: the commit was lost to other writers too often; running again can succeed.
        UnavailableError: the commit cannot be written.
        CorruptDataError: there is no table at `path`, or it is damaged.
    """

    def drop() -> int:
        table = delta.open_table(path)
        corrected = _find_corrected(table, path, keys, event, created, before)
        _store_kept_since(table, before)
        if not len(corrected):
            return 0
        corrected = corrected.group_by(corrected.column_names).aggregate([])
        same_row = " AND ".join(f'kept."{column}" = gone."{column}"' for column in corrected.column_names)
        properties = _choose_writer_properties(table)
        merge = table.merge(
            corrected, predicate=same_row, source_alias="gone", target_alias="kept", writer_properties=properties
        )
        return int(merge.when_matched_delete().execute()["num_target_rows_deleted"])

    return delta.commit_with_retries(path, drop)


def count_corrected(path: Location, *, keys: Sequence[str], event: str | None, created: str, before: datetime) -> int:
    """Return the number of rows that `drop_corrected` would drop with the same arguments. Changes nothing.

    Args:
        path: the table's location.
        keys: columns of the key.
        event: name of the event timestamp column; None if there is none: all rows of a key are of one moment.
        created: name of the created timestamp column.
        before: the correcting row must have been created before this time, exclusive. With a time zone.

    Raises:
        CorruptDataError: there is no table at `path`, or it is damaged.
    """
    return len(_find_corrected(delta.open_table(path), path, keys, event, created, before))


def count_rows(path: Location, values: Mapping[str, Sequence[str]]) -> int:
    """Return the number of rows that `forget` would delete, if it were called for each column that the table has.

    A row with ids in two of the columns is counted once. 0 if the table has none of the columns.

    Args:
        path: the table's location.
        values: name of an id column -> ids, as text. Columns without ids, and those that the table lacks, are ignored.

    Raises:
        NotFoundError: there is no table at `path`.
        CorruptDataError: the table is damaged.
    """
    dataset = delta.open_dataset(path)
    columns = [column for column, ids in values.items() if ids and column in dataset.schema.names]
    conditions = [pc.field(column).cast(pa.string()).isin(list(values[column])) for column in columns]
    return dataset.count_rows(filter=reduce(or_, conditions)) if conditions else 0


def forget(path: Location, column: str, values: Sequence[str | int]) -> int:
    """Delete the rows of some products or users in one commit.

    Readers that open the table afterwards do not see the rows. The bytes stay on disk until a `vacuum` whose grace has
    passed. The log names the ids, in the condition of the deletion and in statistics of files, until a `vacuum` removes
    these entries.

    Args:
        path: the table's location.
        column: name of the id column.
        values: the ids, of the column's type; without any, nothing happens. Ids that no row has are ignored.

    Returns:
        The number of rows deleted; 0, without a new version of the table, if no row has one of the ids.

    Raises:
        ConflictError: the commit was lost to other writers too often; running again can succeed.
        UnavailableError: the commit cannot be written, or the table has no such column.
        CorruptDataError: there is no table at `path`, or its log cannot be read.
    """
    if not values:
        return 0
    quoted = (str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'" for value in values)
    predicate = f'"{column}" IN ({", ".join(quoted)})'

    def delete() -> int:
        table = delta.open_table(path)
        return int(table.delete(predicate, writer_properties=_choose_writer_properties(table))["num_deleted_rows"])

    return delta.commit_with_retries(path, delete)


def compact(path: Location) -> None:
    """Merge a table's small files into larger ones; no row changes. The small files stay on disk until `vacuum`.

    The table gets a new version, unless there is nothing to merge.

    Args:
        path: the table's location.

    Raises:
        ConflictError: the commit was lost to other writers too often; running again can succeed.
        UnavailableError: the commit cannot be written.
        CorruptDataError: there is no table at `path`, or its log cannot be read.
    """

    def merge() -> None:
        table = delta.open_table(path)
        table.optimize.compact(writer_properties=_choose_writer_properties(table))

    delta.commit_with_retries(path, merge)


def compact_small_files(path: Location) -> bool:
    """Merge the small files that many commits leave, if there are SMALL_FILES of them; no row changes.

    Call it after each of many small commits, so that the number of files and the time of a commit stay bounded. Files
    of up to COMPACTED_BYTES are written; larger ones stay as they are. Other writers may commit meanwhile, and readers
    of older versions find their files until `vacuum`.

    Args:
        path: the table's location.

    Returns:
        Whether files were merged.

    Raises:
        ConflictError: the commit was lost to deletions too often; running again can succeed.
        UnavailableError: the commit cannot be written.
        CorruptDataError: there is no table at `path`, or its log cannot be read.
    """

    def merge() -> bool:
        table = delta.open_table(path)
        if sum(size < SMALL_BYTES for size in delta_files.list_files(table).values()) < SMALL_FILES:
            return False
        table.optimize.compact(target_size=COMPACTED_BYTES, writer_properties=_choose_writer_properties(table))
        return True

    is_merged = delta.commit_with_retries(path, merge)
    if is_merged:
        delta_log.shorten_log(path, delta_log.LOG_RETENTION)
    return is_merged


def vacuum(
    path: Location, *, grace: timedelta, dry_run: bool = False, keep_log: timedelta = delta_log.LOG_RETENTION
) -> int:
    """Remove files that the newest version does not use, and entries of the log before its newest checkpoint.

    Args:
        path: the table's location.
        grace: keep files that were removed from the table, or written but not committed, less than this long ago:
            readers of an older version and running writers need them. Rounded up to whole hours. Zero keeps none.
        dry_run: only count the files; remove nothing.
        keep_log: keep entries of the log that were written less than this long ago.

    Returns:
        The number of files removed, or that would be removed. Log entries are not counted.

    Raises:
        CorruptDataError: there is no table at `path`, or its log cannot be read.
        UnavailableError: a file cannot be removed. Others may be removed.
    """
    hours = -(-grace // timedelta(hours=1))
    table = delta.open_table(path)
    with translate_errors(open_storage(path).uri):
        removed = len(table.vacuum(retention_hours=hours, enforce_retention_duration=False, dry_run=dry_run, full=True))
    if not dry_run:
        delta_log.shorten_log(path, keep_log)
    return removed


def _choose_writer_properties(table: DeltaTable) -> WriterProperties | None:
    """Return the Parquet properties of a table's files, for those that are written again."""
    return delta_columns.choose_writer_properties(pa.schema(table.schema().to_arrow()))


def _find_corrected(
    table: DeltaTable, path: Location, keys: Sequence[str], event: str | None, created: str, before: datetime
) -> pa.Table:
    """Return key, event and created timestamp of each row that another one corrected before `before`."""
    columns = [*keys, *([] if event is None else [event]), created]
    rows = delta_files.open_version(table, path).to_table(columns=columns)
    moments = pa.chunked_array([pa.repeat(before, len(rows))]) if event is None else rows[event]
    versions = asof.index_versions([rows[key] for key in keys], moments, rows[created], created_before=before)
    if not len(versions.row):
        return rows.slice(0, 0)
    first_of_key = np.zeros(len(versions.row), dtype=bool)
    first_of_key[versions.starts[:-1][np.diff(versions.starts) > 0]] = True
    first_of_moment = first_of_key | (np.diff(versions.event, prepend=versions.event[0]) != 0)
    lasts = np.append(np.flatnonzero(first_of_moment)[1:], len(versions.row)) - 1  # of one moment, the last created
    corrected = versions.created < versions.created[lasts[np.cumsum(first_of_moment) - 1]]
    return rows.take(pa.array(versions.row[corrected]))


def _store_kept_since(table: DeltaTable, before: datetime) -> None:
    stored = table.metadata().configuration.get(KEPT_SINCE)
    if stored is None or datetime.fromisoformat(stored) < before:
        table.alter.set_table_properties({KEPT_SINCE: before.isoformat()}, raise_if_not_exists=False)
