"""Training sets in normalized form: the rows, and for each feature view row numbers into its distinct versions.

A training set of 10 million impressions over 60,000 product versions holds 10 million integers and 60,000 vectors.
What is computed per version (a projection, a norm) is computed 60,000 times. `TrainingSet.to_table` copies the vectors
to every row for consumers that need them so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo.arrow import take, timestamps
from feature_repo.errors import InvalidInputError, NotFoundError, VitrineError
from feature_repo.offline import asof
from feature_repo.schema import ENCODER_VERSION

Int64: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class ViewTable:
    """The table of one feature view, and how the join reads it.

    Raises:
        NotFoundError: the table lacks one of the named columns.
    """

    name: str
    """Name of the feature view."""
    table: pyarrow.dataset.Dataset
    """All versions of all entities, in any order."""
    keys: Mapping[str, str]
    """Join keys: column of the rows -> column of the table. Empty for a view without entities."""
    features: Mapping[str, str]
    """Column of the result -> column of the table."""
    event_timestamp: str
    """Name of the table's column with the time from which a version is valid, inclusive."""
    created_timestamp: str | None = None
    """Name of the table's column with the time at which a version was computed; None if there is none."""
    ttl: timedelta | None = None
    """How long a version is valid, inclusive. None or zero: without limit."""
    kept_since: datetime | None = None
    """Versions that were corrected before this time may have been dropped (`retention.drop_corrected`). None: none
    have been dropped."""
    encoder_version: str | None = None
    """Only rows with this text in the column schema.ENCODER_VERSION are versions; None: all rows are."""

    def __post_init__(self) -> None:
        columns = [*self.keys.values(), *self.features.values(), self.event_timestamp]
        columns += [self.created_timestamp] if self.created_timestamp else []
        columns += [ENCODER_VERSION] if self.encoder_version is not None else []
        missing = sorted(set(columns) - set(self.table.schema.names))
        if missing:
            raise NotFoundError(
                f"the table of feature view `{self.name}` has no column {', '.join(missing)}; "
                f"it has {', '.join(self.table.schema.names)}"
            )


Matches: TypeAlias = Iterator[tuple[Int64 | slice, Int64]]
"""Row numbers, from 0, and for each the position, from 0, of its version in the view's table; -1 for none."""
Lookup: TypeAlias = Callable[[pa.Table | pyarrow.dataset.Dataset, str, ViewTable, bool, datetime | None], Matches]
"""A function that looks rows up in a view: (rows, name of their timestamp column, view, `created_by_then`,
`created_before`) -> matches. Rows that it does not yield have no version."""


@dataclass(frozen=True)
class MatchedVersions:
    """The versions of one feature view that a training set uses."""

    row_index: Int64
    """[rows] each row's version as an index, from 0, into `versions`; -1 if it has none."""
    versions: pa.Table
    """Each version in use once, in the table's order. Columns are the features, named as in the result."""
    event_timestamp: pa.ChunkedArray
    """[versions] event timestamp of each version, in UTC."""


@dataclass(frozen=True)
class TrainingSet:
    """The rows in their order, and the matching versions of each feature view."""

    rows: pa.Table
    """The rows that were joined, with their own columns only."""
    views: Mapping[str, MatchedVersions]
    """Name of the feature view -> its versions, in the order in which the views were given."""

    def to_table(self, *, dictionary: bool = False) -> pa.Table:
        """Return the rows in their order with a column for every feature; null where a view has no version.

        The columns of the rows come first, then those of each view in the order of `views`. Features keep the types
        that they have in the view's table.

        Args:
            dictionary: return list features (vectors) as dictionary arrays over the distinct versions instead of
                copying them to every row.
        """
        result = self.rows
        for matched in self.views.values():
            for name in matched.versions.column_names:
                column = matched.versions[name]
                as_dictionary = dictionary and take.is_list(column.type)
                take_values = take.take_dictionary if as_dictionary else take.take_column
                result = result.append_column(name, take_values(column, matched.row_index))
        return result

    def to_batches(self, *, rows: int = 65_536) -> Iterator[pa.Table]:
        """Yield the rows with a column for every feature piece by piece, so that few vectors are in memory at a time.

        The pieces have the columns of `to_table`. No piece is yielded if there are no rows.

        Args:
            rows: rows in a piece, at least 1; the last piece may have fewer.
        """
        for start in range(0, len(self.rows), rows):
            views = {
                name: MatchedVersions(
                    matched.row_index[start : start + rows], matched.versions, matched.event_timestamp
                )
                for name, matched in self.views.items()
            }
            yield TrainingSet(self.rows.slice(start, rows), views).to_table()


def join(
    rows: pa.Table,
    event_timestamp: str,
    views: Sequence[ViewTable],
    *,
    created_by_then: bool = False,
    created_before: datetime | None = None,
    find: Lookup | None = None,
) -> TrainingSet:
    """Join rows with each view as of the row's own time. Every row is kept, in its order, matched or not.

    A row gets the version of its key with the latest event timestamp that is not after the row's own time, bound
    inclusive. Of several, the one created last is taken, then the one at the later position in the table.

    Args:
        rows: the views' join keys, a timestamp and any further columns. Null keys and timestamps match nothing. Keys
            may repeat.
        event_timestamp: name of the timestamp column in `rows`.
        views: the feature views; without any, the result is the rows alone.
        created_by_then: use only versions that had been created by the row's own time, inclusive. Views without a
            created timestamp ignore it.
        created_before: use only versions created before this time, exclusive, which gives the same training set again
            whatever has been written since. Views without a created timestamp ignore it. None: no limit.
        find: the function that looks the rows up, for example on a cluster; None looks them up in this process.

    Raises:
        NotFoundError: `rows` lacks a join key or the timestamp.
        InvalidInputError: a column has a type that cannot be joined, or would be in the result twice; or versions that
            the join would need may have been dropped by the retention.
    """
    require_unambiguous_columns(rows.schema, event_timestamp, views)
    earliest = pc.min(timestamps.to_utc(rows[event_timestamp])) if created_by_then else pa.scalar(None)
    times = [timestamps.scalar_to_datetime(earliest)] if earliest.is_valid else []
    require_kept_versions(views, [*times, *([created_before] if created_before else [])])
    find = find or _look_up_in_memory
    return TrainingSet(
        rows=rows,
        views={
            view.name: _match(len(rows), view, find(rows, event_timestamp, view, created_by_then, created_before))
            for view in views
        },
    )


def key_and_time_columns(view: ViewTable) -> list[str]:
    """Return the columns of a view's table that the join needs: keys, timestamps and encoder version. Each once."""
    created = [view.created_timestamp] if view.created_timestamp else []
    version = [ENCODER_VERSION] if view.encoder_version is not None else []
    return list(dict.fromkeys([*view.keys.values(), view.event_timestamp, *created, *version]))


def index_view(view: ViewTable, order: pa.Table, created_before: datetime | None) -> asof.VersionIndex:
    """Build the sorted index of a view for `look_up_view`.

    Args:
        view: the view.
        order: rows of its table with the `key_and_time_columns`. The index refers to them by their position here.
        created_before: leave out versions created at or after this time, and those without a created timestamp; None
            leaves out none. Ignored if the view has no created timestamp.

    Raises:
        InvalidInputError: a timestamp column holds no timestamps.
    """
    is_selected = None
    if view.encoder_version is not None:
        is_selected = pc.equal(order[ENCODER_VERSION], view.encoder_version).fill_null(False).to_numpy()
    return asof.index_versions(
        [order[column] for column in view.keys.values()],
        order[view.event_timestamp],
        order[view.created_timestamp] if view.created_timestamp else None,
        created_before=created_before if view.created_timestamp else None,
        is_selected=is_selected,
    )


def look_up_view(
    view: ViewTable, versions: asof.VersionIndex, rows: pa.Table, event_timestamp: str, created_by_then: bool
) -> Int64:
    """Return int64 [rows], the position of each row's version among the rows that were indexed; -1 for none.

    Args:
        view: the view.
        versions: its index (`index_view`).
        rows: rows with the view's join keys and the timestamp.
        event_timestamp: name of the timestamp column in `rows`.
        created_by_then: use only versions created by the row's time, inclusive, if the view has a created timestamp.

    Raises:
        InvalidInputError: a key or the timestamp cannot be compared with the view's; the message names the view.
    """
    with name_view_in_errors(view):
        return asof.look_up(
            versions,
            [rows[column] for column in view.keys],
            rows[event_timestamp],
            ttl=view.ttl,
            created_by_then=created_by_then and view.created_timestamp is not None,
        )


@contextmanager
def name_view_in_errors(view: ViewTable) -> Iterator[None]:
    """Add the names of the view and its join keys to the message of a VitrineError that the block raises.

    The class of the error stays. Other exceptions are raised as they are.
    """
    try:
        yield
    except VitrineError as error:
        raise type(error)(f"feature view `{view.name}`, join key {', '.join(view.keys)}: {error}") from error


def require_unambiguous_columns(schema: pa.Schema, event_timestamp: str, views: Sequence[ViewTable]) -> None:
    """Require that rows have every join key and the timestamp, and that no result column has two sources.

    Args:
        schema: schema of the rows.
        event_timestamp: name of the timestamp column.
        views: the feature views; without any, only the timestamp is required.

    Raises:
        NotFoundError: a column is missing; the message names the first one.
        InvalidInputError: a feature has the name of a column of the rows or of another view's feature.
    """
    needed = {event_timestamp: "the timestamp"}
    needed |= {key: f"feature view `{view.name}`" for view in views for key in view.keys}
    for column, purpose in needed.items():
        if column not in schema.names:
            raise NotFoundError(f"the entity rows have no column `{column}` for {purpose}; they have {schema.names}")
    sources = dict.fromkeys(schema.names, "the entity rows")
    for view in views:
        for feature in view.features:
            if feature in sources:
                raise InvalidInputError(
                    f"column `{feature}` comes from {sources[feature]} and from feature view `{view.name}`; "
                    "use full_feature_names=True, or rename one"
                )
            sources[feature] = f"feature view `{view.name}`"


def require_kept_versions(views: Sequence[ViewTable], times: Sequence[datetime]) -> None:
    """Require that no view may have dropped versions that were known at the earliest of some times.

    A time equal to a view's `kept_since` passes.

    Args:
        views: the feature views. Those without a created timestamp, or with `kept_since` None, always pass.
        times: times whose state is needed, with a time zone; without any, all views pass.

    Raises:
        InvalidInputError: the earliest time is before a view's `kept_since`; the message names the first such view.
    """
    for view in views:
        if times and view.kept_since and view.created_timestamp and min(times) < view.kept_since:
            raise InvalidInputError(
                f"feature view `{view.name}`: the state at {min(times).isoformat()} is no longer available; versions "
                f"corrected before {view.kept_since.isoformat()} have been dropped (`retention_days`); choose a later "
                "time"
            )


def _look_up_in_memory(
    rows: pa.Table | pyarrow.dataset.Dataset,
    event_timestamp: str,
    view: ViewTable,
    created_by_then: bool,
    created_before: datetime | None,
) -> Matches:
    order = view.table.to_table(columns=key_and_time_columns(view))
    versions = index_view(view, order, created_before)
    yield slice(None), look_up_view(view, versions, rows, event_timestamp, created_by_then)


def _match(row_count: int, view: ViewTable, matches: Matches) -> MatchedVersions:
    """Read the versions in use once, and turn table positions into indices into them."""
    row_index = np.full(row_count, -1)
    for numbers, positions in matches:
        row_index[numbers] = positions
    used = take.renumber(row_index, view.table.count_rows())
    columns = list(dict.fromkeys([*view.features.values(), view.event_timestamp]))
    rows = take.take_rows(view.table, used, columns)
    versions = pa.table({name: rows[column] for name, column in view.features.items()}).combine_chunks()
    event_timestamp = timestamps.to_utc(rows[view.event_timestamp])
    del rows
    pa.default_memory_pool().release_unused()  # memory of the read, before vectors are copied per row
    return MatchedVersions(row_index, versions, event_timestamp)
