"""Stretches of a table's history: all rows of a time window, or the newest row of each entity in it."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo.arrow import take, timestamps
from feature_repo.errors import VitrineError
from feature_repo.offline import asof, delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ACTIVE, PRODUCT_ID, TIMESTAMP


def window_filter(
    table: pyarrow.dataset.Dataset, event_timestamp: str, start: datetime | None, end: datetime | None
) -> pyarrow.dataset.Expression | None:
    """The filter for rows with `start <= event_timestamp <= end` (both bounds inclusive, as Feast has them)."""
    bounds = []
    type_ = table.schema.field(event_timestamp).type
    if start is not None:
        bounds.append(pc.field(event_timestamp) >= _bound(start, type_))
    if end is not None:
        bounds.append(pc.field(event_timestamp) <= _bound(end, type_))
    if not bounds:
        return None
    return bounds[0] if len(bounds) == 1 else bounds[0] & bounds[1]


def read_all(
    table: pyarrow.dataset.Dataset, columns: Sequence[str], where: pyarrow.dataset.Expression | None
) -> pa.Table:
    """Every row that `where` lets through, in one chunk per column."""
    require_columns(table, columns)
    return table.to_table(columns=list(columns), filter=where).combine_chunks()


def read_newest(
    table: pyarrow.dataset.Dataset,
    columns: Sequence[str],
    where: pyarrow.dataset.Expression | None,
    *,
    keys: Sequence[str],
    event_timestamp: str,
    created_timestamp: str | None,
) -> pa.Table:
    """The newest row of each key among those that `where` lets through, in the table's order, in one chunk per column.

    Newest by event time, then created time, then position. Rows with a null key or event time are never it; without
    keys, the table is the history of one thing.
    """
    created = [created_timestamp] if created_timestamp else []
    order_columns = list(dict.fromkeys([*keys, event_timestamp, *created]))
    require_columns(table, [*columns, *order_columns])
    order = table.to_table(columns=order_columns, filter=where)
    versions = asof.index_versions(
        [order[key] for key in keys], order[event_timestamp], order[created_timestamp] if created_timestamp else None
    )
    return take.take_rows(table, newest_positions(versions), columns, where=where).combine_chunks()


def newest_positions(versions: asof.VersionIndex) -> asof.Int64:
    """The position of each key's newest version, ascending."""
    filled = np.diff(versions.starts) > 0
    return np.sort(versions.row[versions.starts[1:][filled] - 1])


def read_distinct_times(
    table: pyarrow.dataset.Dataset,
    keys: dict[str, str],
    event_timestamp: str,
    where: pyarrow.dataset.Expression | None,
    *,
    moment: str,
) -> pa.Table:
    """Each key and event time once, sorted by time then key: the keys named by `keys`, the time (UTC) as `moment`."""
    columns = list(dict.fromkeys([*keys.values(), event_timestamp]))
    require_columns(table, columns)
    rows = table.to_table(columns=columns, filter=where)
    named = {moment: timestamps.to_utc(rows[event_timestamp]), **{name: rows[column] for name, column in keys.items()}}
    distinct = pa.table(named).group_by(list(named)).aggregate([]).drop_null()
    return distinct.sort_by([(name, "ascending") for name in named])


def require_columns(table: pyarrow.dataset.Dataset, columns: Sequence[str]) -> None:
    """Raise a `VitrineError` that names the columns the table lacks, if any."""
    missing = sorted(set(columns) - set(table.schema.names))
    if missing:
        raise VitrineError(f"no column {', '.join(missing)} in the table; it has {', '.join(table.schema.names)}")


def _bound(moment: datetime, type_: pa.DataType) -> pa.Scalar:
    zone = type_.tz if pa.types.is_timestamp(type_) else None
    return pa.scalar(timestamps.datetime_to_ticks(moment, "us"), pa.timestamp("us", tz=zone))


def read_gone_products(path: Path, at: datetime | None = None) -> pa.ChunkedArray:
    """The products that went and have not come back; string, each once, in no order.

    Args:
        path: of the table `product_active`, which may not exist: then none is gone.
        at: as of when, inclusive; None for the newest that is known.
    """
    if not delta.exists(path):
        return pa.chunked_array([], pa.string())
    rows = delta.read(path, PRODUCT_ACTIVE.names)
    if at is not None:
        rows = rows.filter(pc.field(EVENT_TIMESTAMP) <= pa.scalar(at, TIMESTAMP))
    newest_last = [(EVENT_TIMESTAMP, "ascending"), (CREATED_TIMESTAMP, "ascending")]
    newest_positions = rows.sort_by(newest_last).group_by(PRODUCT_ID, use_threads=False).aggregate([("active", "last")])
    return newest_positions.filter(pc.invert(newest_positions["active_last"]))[PRODUCT_ID]


def read_active_products(catalogue: Path, path: Path, at: datetime) -> pa.Array:
    """The products of a catalogue that are on sale at a time: known by then, and not gone by then; each once."""
    rows = delta.read(catalogue, [PRODUCT_ID, EVENT_TIMESTAMP])
    known = pc.unique(rows.filter(pc.field(EVENT_TIMESTAMP) <= pa.scalar(at, TIMESTAMP))[PRODUCT_ID].drop_null())
    return known.filter(pc.invert(pc.is_in(known, value_set=read_gone_products(path, at).combine_chunks())))
