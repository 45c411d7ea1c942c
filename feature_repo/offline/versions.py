"""Versions in a Delta table: all rows of a time window, the newest row of each key, the products on sale."""

import functools
import operator
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo.arrow import take, timestamps
from feature_repo.errors import NotFoundError
from feature_repo.location import Location
from feature_repo.offline import asof, delta
from feature_repo.schema import (
    CREATED_TIMESTAMP,
    ENCODER_VERSION,
    EVENT_TIMESTAMP,
    PRODUCT_ACTIVE,
    PRODUCT_ID,
    TIMESTAMP,
)


def window_filter(
    table: pyarrow.dataset.Dataset,
    event_timestamp: str,
    start: datetime | None,
    end: datetime | None,
    *,
    encoder_version: str | None = None,
) -> pyarrow.dataset.Expression | None:
    """Return the filter for rows with `start <= event_timestamp <= end`.

    Both bounds are inclusive, as in Feast. None leaves a side open; with two open sides the result is None. A filter
    leaves out rows with a null timestamp. A start after the end selects nothing.

    Args:
        table: the table, for the type of its timestamp column.
        event_timestamp: name of the timestamp column.
        start: first timestamp; without a time zone it is UTC.
        end: last timestamp; without a time zone it is UTC.
        encoder_version: only rows of this version; None: of all.
    """
    bounds = [] if encoder_version is None else [pc.field(ENCODER_VERSION) == encoder_version]
    type_ = table.schema.field(event_timestamp).type
    if start is not None:
        bounds.append(pc.field(event_timestamp) >= _to_scalar(start, type_))
    if end is not None:
        bounds.append(pc.field(event_timestamp) <= _to_scalar(end, type_))
    return functools.reduce(operator.and_, bounds) if bounds else None


def read_all(
    table: pyarrow.dataset.Dataset, columns: Sequence[str], where: pyarrow.dataset.Expression | None
) -> pa.Table:
    """Read every row that a filter selects, in the table's order, with one chunk per column.

    Args:
        table: the table.
        columns: the columns to read, in the order of the result.
        where: the filter; None selects all rows.

    Raises:
        NotFoundError: the table lacks one of the columns.
    """
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
    """Read the newest row of each key.

    The newest row has the latest event timestamp; ties go to the latest created timestamp, then to the last position.
    Rows with a null key or event timestamp are ignored.

    Args:
        table: the table.
        columns: the columns to return, in the order of the result.
        where: only rows that this filter selects take part; None: all.
        keys: columns of the key; without any, the table is the history of one entity.
        event_timestamp: name of the event timestamp column.
        created_timestamp: name of the created timestamp column; None if there is none.

    Returns:
        One row per key in the table's order, with one chunk per column; no rows if none takes part.

    Raises:
        NotFoundError: the table lacks one of the columns.
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
    """Return int64, the table position (from 0) of each key's newest version.

    The positions are ascending, so not in the order of the keys. Empty if the index has no versions.
    """
    has_versions = np.diff(versions.starts) > 0
    return np.sort(versions.row[versions.starts[1:][has_versions] - 1])


def read_distinct_times(
    table: pyarrow.dataset.Dataset,
    keys: dict[str, str],
    event_timestamp: str,
    where: pyarrow.dataset.Expression | None,
    *,
    time_name: str,
) -> pa.Table:
    """Read each distinct pair of key and event timestamp once, sorted by timestamp, then by key.

    Rows with a null key or event timestamp are left out.

    Args:
        table: the table.
        keys: column of the result -> column of the table.
        event_timestamp: name of the event timestamp column.
        where: filter; None: all rows.
        time_name: name of the timestamp column in the result, which is in UTC.

    Returns:
        The timestamp column, then the key columns in the order of `keys`.

    Raises:
        NotFoundError: the table lacks one of the columns.
    """
    columns = list(dict.fromkeys([*keys.values(), event_timestamp]))
    require_columns(table, columns)
    rows = table.to_table(columns=columns, filter=where)
    renamed = {
        time_name: timestamps.to_utc(rows[event_timestamp]),
        **{name: rows[column] for name, column in keys.items()},
    }
    distinct = pa.table(renamed).group_by(list(renamed)).aggregate([]).drop_null()
    return distinct.sort_by([(name, "ascending") for name in renamed])


def require_columns(table: pyarrow.dataset.Dataset, columns: Sequence[str]) -> None:
    """Require that a table has some columns.

    Args:
        table: the table.
        columns: names of the columns; may repeat.

    Raises:
        NotFoundError: columns are missing; the message names all of them in alphabetical order, and those that exist.
    """
    missing = sorted(set(columns) - set(table.schema.names))
    if missing:
        raise NotFoundError(f"no column {', '.join(missing)} in the table; it has {', '.join(table.schema.names)}")


def read_gone_products(path: Location, at: datetime | None = None) -> pa.ChunkedArray:
    """Return the products that have left the catalogue and not come back: strings, each once, in no order.

    The table `product_active` (schema.PRODUCT_ACTIVE) has no row for a product that never left, so it grows with
    departures and returns and not with the catalogue.

    Args:
        path: folder of `product_active`. If there is no table, no product is gone.
        at: state as of this time, inclusive, by event timestamps; without a time zone it is UTC. None: the latest
            state. Of equal event timestamps, the row created last counts.

    Raises:
        CorruptDataError: the table is damaged.
    """
    if not delta.exists(path):
        return pa.chunked_array([], pa.string())
    rows = delta.read(path, PRODUCT_ACTIVE.names)
    if at is not None:
        rows = rows.filter(pc.field(EVENT_TIMESTAMP) <= pa.scalar(at, TIMESTAMP))
    newest_last = [(EVENT_TIMESTAMP, "ascending"), (CREATED_TIMESTAMP, "ascending")]
    newest = rows.sort_by(newest_last).group_by(PRODUCT_ID, use_threads=False).aggregate([("active", "last")])
    return newest.filter(pc.invert(newest["active_last"]))[PRODUCT_ID]


def read_active_products(catalogue: Location, path: Location, at: datetime) -> pa.Array:
    """Return the products that are on sale at a time: in the catalogue by then, and not gone. Each once, in no order.

    Args:
        catalogue: folder of the table `product_catalogue`.
        path: folder of `product_active`; it need not exist.
        at: the time, inclusive, by event timestamps. Without a time zone it is UTC.

    Returns:
        Product ids as strings; empty if none is on sale.

    Raises:
        NotFoundError: there is no catalogue.
        CorruptDataError: a table is damaged.
    """
    rows = delta.read(catalogue, [PRODUCT_ID, EVENT_TIMESTAMP])
    products = pc.unique(rows.filter(pc.field(EVENT_TIMESTAMP) <= pa.scalar(at, TIMESTAMP))[PRODUCT_ID].drop_null())
    gone = read_gone_products(path, at).combine_chunks()
    return products.filter(pc.invert(pc.is_in(products, value_set=gone)))


def _to_scalar(timestamp: datetime, type_: pa.DataType) -> pa.Scalar:
    zone = type_.tz if pa.types.is_timestamp(type_) else None
    return pa.scalar(timestamps.datetime_to_ticks(timestamp, "us"), pa.timestamp("us", tz=zone))
