"""The entity rows of a training set: keys of entities, each with the time of interest."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from feast import FeatureView
from feast.infra.offline_stores.offline_store import RetrievalMetadata

from feature_repo.arrow import timestamps
from feature_repo.errors import InvalidInputError
from feature_repo.offline import versions
from feature_repo.offline.training_set import ViewTable
from feature_repo.stores.feast_compat import EVENT_TIMESTAMP, compute_non_entity_date_range


@dataclass(frozen=True)
class EntityRows:
    """The rows of a training set, before features are joined: keys of entities, each with the time of interest."""

    rows: pa.Table | pyarrow.dataset.Dataset
    """The rows in memory, or a data set that is read when it is joined."""
    event_timestamp: str
    """The name of the column with the time of each row."""

    @staticmethod
    def from_caller(entity_df: pd.DataFrame | pa.Table | pyarrow.dataset.Dataset | Any) -> "EntityRows":
        """Convert the caller's rows to Arrow and their time column to UTC; times without a time zone are UTC.

        The time column is `event_timestamp`, or else the only column of timestamps. A data set is neither read nor
        converted. A DataFrame's column `event_timestamp` of dtype object is parsed as times. The order of the rows is
        kept; the index of a DataFrame is dropped.

        Args:
            entity_df: the rows, with the join keys, a time and any further columns.

        Raises:
            InvalidInputError: the rows are SQL or of another type; no column, or more than one, can be the time; or a
                column of a DataFrame does not fit Arrow.
        """
        if isinstance(entity_df, str):
            raise InvalidInputError(
                "entity_df is a SQL string, and DeltaOfflineStore runs no SQL; pass a pandas DataFrame or a pyarrow "
                "Table"
            )
        if isinstance(entity_df, pyarrow.dataset.Dataset):
            return EntityRows(entity_df, _find_time_column(entity_df.schema))
        if not isinstance(entity_df, pd.DataFrame | pa.Table):
            raise InvalidInputError(
                f"entity_df is a {type(entity_df).__name__}; pass a pandas DataFrame or a pyarrow Table"
            )
        rows = _to_arrow(entity_df) if isinstance(entity_df, pd.DataFrame) else entity_df
        column = _find_time_column(rows.schema)
        rows = rows.set_column(rows.column_names.index(column), column, timestamps.to_utc(rows[column]))
        return EntityRows(rows, column)

    @staticmethod
    def from_views(
        views: Sequence[ViewTable],
        feature_views: Sequence[FeatureView],
        start_date: datetime | None,
        end_date: datetime | None,
    ) -> "EntityRows":
        """Return a row for each key and event time in the views' tables between two dates (inclusive), each once.

        The rows are sorted by time, then by key; the time column is called `event_timestamp`.

        Rows of a view whose keys are not null are taken. A view with other keys than the first one's adds rows in
        which the first one's keys are null.

        Args:
            views: the views' tables and columns.
            feature_views: the same views, as Feast has them; their TTLs count.
            start_date: the first event time; None: `end_date` minus the longest TTL, or 30 days if no view has one.
            end_date: the last event time; None: now.

        Raises:
            InvalidInputError: there are no views.
            NotFoundError: a table lacks a key column.
        """
        start, end = compute_non_entity_date_range(list(feature_views), start_date=start_date, end_date=end_date)
        times = [
            versions.read_distinct_times(
                view.table,
                dict(view.keys),
                view.event_timestamp,
                versions.window_filter(
                    view.table, view.event_timestamp, start, end, encoder_version=view.encoder_version
                ),
                time_name=EVENT_TIMESTAMP,
            )
            for view in views
        ]
        if not times:
            raise InvalidInputError("without entity rows, name at least one feature of a feature view")
        together = pa.concat_tables(times, promote_options="permissive")
        distinct = together.group_by(together.column_names).aggregate([])
        return EntityRows(distinct.sort_by([(name, "ascending") for name in together.column_names]), EVENT_TIMESTAMP)

    def metadata(self, feature_refs: list[str]) -> RetrievalMetadata:
        """Return Feast's description of a training set: its features, its other columns and its time range.

        The other columns are all columns of the rows except the one with the time. The time range is None if there are
        no
        rows, or if they are a data set.

        Args:
            feature_refs: the features, as `view:feature`.
        """
        described = {
            "features": feature_refs,
            "keys": [name for name in self.rows.schema.names if name != self.event_timestamp],
        }
        if not isinstance(self.rows, pa.Table):
            return RetrievalMetadata(**described)
        bounds = pc.min_max(self.rows[self.event_timestamp].cast(pa.timestamp("us", tz="UTC"), safe=False))
        first, last = bounds["min"].as_py(), bounds["max"].as_py()
        return RetrievalMetadata(**described, min_event_timestamp=first, max_event_timestamp=last)


def _to_arrow(frame: pd.DataFrame) -> pa.Table:
    """Return the frame without its index; a column `event_timestamp` of objects becomes timestamps."""
    if EVENT_TIMESTAMP in frame and frame[EVENT_TIMESTAMP].dtype == object:
        try:
            parsed = pd.to_datetime(frame[EVENT_TIMESTAMP], utc=True)
        except (ValueError, TypeError) as error:
            raise InvalidInputError(
                f"entity_df: column `{EVENT_TIMESTAMP}` has values that are not times: {error}"
            ) from error
        frame = frame.assign(**{EVENT_TIMESTAMP: parsed})
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    except pa.ArrowException as error:
        raise InvalidInputError(f"entity_df does not fit Arrow: {' '.join(map(str, error.args))}") from error


def _find_time_column(schema: pa.Schema) -> str:
    """Return `event_timestamp` or the only column of timestamps; raise InvalidInputError if there is no such column."""
    timestamp_columns = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    if EVENT_TIMESTAMP in schema.names:
        if EVENT_TIMESTAMP not in timestamp_columns:
            type_ = schema.field(EVENT_TIMESTAMP).type
            raise InvalidInputError(f"entity_df: column `{EVENT_TIMESTAMP}` is {type_}; expected a timestamp")
        return EVENT_TIMESTAMP
    if len(timestamp_columns) != 1:
        raise InvalidInputError(
            f"entity_df has no column `{EVENT_TIMESTAMP}`, and {len(timestamp_columns)} columns of timestamps "
            f"({timestamp_columns}); name the one with the time of each row `{EVENT_TIMESTAMP}`"
        )
    return timestamp_columns[0]
