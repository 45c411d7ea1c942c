"""The rows of a training set: what the caller hands in, or every moment that the views themselves know."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from feast import FeatureView
from feast.infra.offline_stores.offline_store import RetrievalMetadata

from feature_repo.arrow import timestamps
from feature_repo.errors import VitrineError
from feature_repo.offline import versions
from feature_repo.offline.training_set import ViewTable
from feature_repo.stores.feast_compat import EVENT_TIMESTAMP, compute_non_entity_date_range


def from_caller(entity_df: pd.DataFrame | pa.Table | Any) -> tuple[pa.Table | pyarrow.dataset.Dataset, str]:
    """The caller's rows as Arrow, and the column that holds their time, now in UTC (without a zone it was UTC).

    The time is `event_timestamp`, or else the only column of timestamps. A data set stays as it is, unread.

    Raises:
        VitrineError: the rows are SQL or of another kind; no column, or more than one, can be the time.
    """
    if isinstance(entity_df, str):
        raise VitrineError(
            "entity_df is a SQL string, and DeltaOfflineStore runs no SQL; pass a pandas DataFrame or a pyarrow Table"
        )
    if isinstance(entity_df, pyarrow.dataset.Dataset):
        return entity_df, _time_column(entity_df.schema)
    if not isinstance(entity_df, pd.DataFrame | pa.Table):
        raise VitrineError(f"entity_df is a {type(entity_df).__name__}; pass a pandas DataFrame or a pyarrow Table")
    rows = _arrow(entity_df) if isinstance(entity_df, pd.DataFrame) else entity_df
    column = _time_column(rows.schema)
    return rows.set_column(rows.column_names.index(column), column, timestamps.to_utc(rows[column])), column


def from_views(
    views: Sequence[ViewTable],
    feature_views: Sequence[FeatureView],
    start_date: datetime | None,
    end_date: datetime | None,
) -> tuple[pa.Table, str]:
    """Each key and event time between the dates (inclusive) that a view's table has, once; no key of a view is null.

    Views of other keys add rows of their own, in which the first one's keys are null.
    """
    start, end = compute_non_entity_date_range(list(feature_views), start_date=start_date, end_date=end_date)
    moments = [
        versions.read_distinct_times(
            view.table,
            dict(view.keys),
            view.event_timestamp,
            versions.window_filter(view.table, view.event_timestamp, start, end),
            time_name=EVENT_TIMESTAMP,
        )
        for view in views
    ]
    if not moments:
        raise VitrineError("without entity rows, at least one feature of a feature view must be asked for")
    together = pa.concat_tables(moments, promote_options="permissive")
    distinct = together.group_by(together.column_names).aggregate([])
    return distinct.sort_by([(name, "ascending") for name in together.column_names]), EVENT_TIMESTAMP


def metadata(rows: pa.Table | pyarrow.dataset.Dataset, column: str, feature_refs: list[str]) -> RetrievalMetadata:
    """What Feast keeps of a training set: features, other columns and, unless its rows are unread, the time's range."""
    described = {"features": feature_refs, "keys": [name for name in rows.schema.names if name != column]}
    if not isinstance(rows, pa.Table):
        return RetrievalMetadata(**described)
    bounds = pc.min_max(rows[column].cast(pa.timestamp("us", tz="UTC"), safe=False))
    first, last = bounds["min"].as_py(), bounds["max"].as_py()
    return RetrievalMetadata(**described, min_event_timestamp=first, max_event_timestamp=last)


def _arrow(frame: pd.DataFrame) -> pa.Table:
    """The frame without its index; a column `event_timestamp` of objects becomes timestamps."""
    if EVENT_TIMESTAMP in frame and frame[EVENT_TIMESTAMP].dtype == object:
        try:
            parsed = pd.to_datetime(frame[EVENT_TIMESTAMP], utc=True)
        except (ValueError, TypeError) as error:
            raise VitrineError(f"entity_df: column `{EVENT_TIMESTAMP}` holds what is no time: {error}") from error
        frame = frame.assign(**{EVENT_TIMESTAMP: parsed})
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    except pa.ArrowException as error:
        raise VitrineError(f"entity_df does not fit Arrow: {' '.join(map(str, error.args))}") from error


def _time_column(schema: pa.Schema) -> str:
    stamps = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    if EVENT_TIMESTAMP in schema.names:
        if EVENT_TIMESTAMP not in stamps:
            type_ = schema.field(EVENT_TIMESTAMP).type
            raise VitrineError(f"entity_df: column `{EVENT_TIMESTAMP}` is {type_}, and a timestamp was expected")
        return EVENT_TIMESTAMP
    if len(stamps) != 1:
        raise VitrineError(
            f"entity_df has no column `{EVENT_TIMESTAMP}`, and {len(stamps)} columns of timestamps ({stamps}); "
            f"name the one that is the time of each row `{EVENT_TIMESTAMP}`"
        )
    return stamps[0]
