"""Training sets in normalised form: rows, and for each feature view a row number into its distinct versions.

Ten million impressions over sixty thousand product versions hold ten million integers and sixty thousand vectors;
what is computed per version (a projection, a norm) is computed sixty thousand times. `Normalised.to_table` writes the
vectors out beside the rows for whoever needs them so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo.arrow import take, timestamps
from feature_repo.errors import VitrineError
from feature_repo.offline import asof

Int64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ViewTable:
    """One feature view's history, as the join sees it."""

    name: str
    table: pyarrow.dataset.Dataset
    keys: Mapping[str, str]
    """Column of the rows -> column of the table; empty for a view without entities."""
    features: Mapping[str, str]
    """Column of the result -> column of the table."""
    event_timestamp: str
    created_timestamp: str | None = None
    ttl: timedelta | None = None
    """How long a version holds, inclusive; None and zero mean for ever."""
    kept_since: datetime | None = None
    """Versions corrected before this moment may be gone from the table (`retention.drop_corrected`)."""

    def __post_init__(self) -> None:
        wanted = [*self.keys.values(), *self.features.values(), self.event_timestamp]
        wanted += [self.created_timestamp] if self.created_timestamp else []
        missing = sorted(set(wanted) - set(self.table.schema.names))
        if missing:
            raise VitrineError(
                f"the table of feature view `{self.name}` has no column {', '.join(missing)}; "
                f"it has {', '.join(self.table.schema.names)}"
            )


Matches: TypeAlias = Iterator[tuple[Int64 | slice, Int64]]
"""Numbers of some rows, and the position of each one's version in the view's table, -1 for none."""
Lookup: TypeAlias = Callable[[pa.Table | pyarrow.dataset.Dataset, str, ViewTable, bool, datetime | None], Matches]
"""Who looks rows up in a view, and where: given the rows, the column of their time, the view, `created_by_then` and
`created_before`, it finds what `find` finds. Rows that it does not name have no version."""


@dataclass(frozen=True)
class MatchedVersions:
    """What one feature view has for each row."""

    row_index: Int64
    """[rows] the row's version in `versions`, -1 where the view has nothing for it."""
    versions: pa.Table
    """Each version that some row got, once, in the table's order: the features, named as in the result."""
    event_timestamp: pa.ChunkedArray
    """[versions] since when each version holds."""


@dataclass(frozen=True)
class TrainingSet:
    """A training set: the rows as they came, in their order, and what each feature view has for them."""

    rows: pa.Table
    views: Mapping[str, MatchedVersions]

    def to_table(self, *, dictionary: bool = False) -> pa.Table:
        """The rows with every feature beside them, null where a view has nothing.

        Args:
            dictionary: list features (vectors) as dictionary arrays over the distinct versions, not written out.
        """
        result = self.rows
        for matched in self.views.values():
            for name in matched.versions.column_names:
                column = matched.versions[name]
                encode = dictionary and take.is_list(column.type)
                make = take.take_dictionary if encode else take.take_column
                result = result.append_column(name, make(column, matched.row_index))
        return result

    def to_batches(self, *, rows: int = 65_536) -> Iterator[pa.Table]:
        """`to_table` in pieces of at most `rows` rows, so that vectors of one piece only are ever written out."""
        for start in range(0, len(self.rows), rows):
            piece = {
                name: MatchedVersions(
                    matched.row_index[start : start + rows], matched.versions, matched.event_timestamp
                )
                for name, matched in self.views.items()
            }
            yield TrainingSet(self.rows.slice(start, rows), piece).to_table()


def join(
    rows: pa.Table,
    event_timestamp: str,
    views: Sequence[ViewTable],
    *,
    created_by_then: bool = False,
    created_before: datetime | None = None,
    find: Lookup | None = None,
) -> TrainingSet:
    """Join rows with each view as of their own time; every row is kept, in its order, whatever it matches.

    Args:
        rows: anything with the views' join keys and a timestamp (null keys and times match nothing).
        event_timestamp: the column of `rows` that holds the time.
        created_by_then: see only versions that were computed by the row's own time.
        created_before: see only versions computed before this moment: the same training set again, whatever has been
            written since. Views without a created timestamp are not bounded by it.
        find: looks the rows up; None: this process.

    Raises:
        VitrineError: a column is missing, is of the wrong kind, or would stand twice in the result; what was known
            then cannot be told any more, because corrected versions have been dropped since.
    """
    require_unambiguous_columns(rows.schema, event_timestamp, views)
    earliest = pc.min(timestamps.to_utc(rows[event_timestamp])) if created_by_then else pa.scalar(None)
    known_at = [timestamps.scalar_to_datetime(earliest)] if earliest.is_valid else []
    require_kept_versions(views, [*known_at, *([created_before] if created_before else [])])
    find = find or _find
    return TrainingSet(
        rows=rows,
        views={
            view.name: _matched(len(rows), view, find(rows, event_timestamp, view, created_by_then, created_before))
            for view in views
        },
    )


def key_and_time_columns(view: ViewTable) -> list[str]:
    """The columns of a view's table that the join needs: keys and times, no feature."""
    created = [view.created_timestamp] if view.created_timestamp else []
    return list(dict.fromkeys([*view.keys.values(), view.event_timestamp, *created]))


def index_view(view: ViewTable, order: pa.Table, created_before: datetime | None) -> asof.VersionIndex:
    """Sort rows of a view's table, of which `order` has the `order_columns`, for `look_up`."""
    return asof.index_versions(
        [order[column] for column in view.keys.values()],
        order[view.event_timestamp],
        order[view.created_timestamp] if view.created_timestamp else None,
        created_before=created_before if view.created_timestamp else None,
    )


def look_up_view(
    view: ViewTable, versions: asof.VersionIndex, rows: pa.Table, event_timestamp: str, created_by_then: bool
) -> Int64:
    """[rows] the position in `order` of each row's version, -1 for none.

    Raises:
        VitrineError: a key or the time is of another kind than the view's; the message names the view.
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
    """Name the view and its join key in a `VitrineError`."""
    try:
        yield
    except VitrineError as error:
        raise VitrineError(f"feature view `{view.name}`, join key {', '.join(view.keys)}: {error}") from error


def _find(
    rows: pa.Table | pyarrow.dataset.Dataset,
    event_timestamp: str,
    view: ViewTable,
    created_by_then: bool,
    created_before: datetime | None,
) -> Matches:
    order = view.table.to_table(columns=key_and_time_columns(view))
    versions = index_view(view, order, created_before)
    yield slice(None), look_up_view(view, versions, rows, event_timestamp, created_by_then)


def _matched(rows: int, view: ViewTable, found: Matches) -> MatchedVersions:
    position = np.full(rows, -1)
    for numbers, positions in found:
        position[numbers] = positions
    used = take.renumber(position, view.table.count_rows())
    wanted = take.take_rows(view.table, used, list(dict.fromkeys([*view.features.values(), view.event_timestamp])))
    distinct = pa.table({name: wanted[column] for name, column in view.features.items()}).combine_chunks()
    since = timestamps.to_utc(wanted[view.event_timestamp])
    del wanted
    pa.default_memory_pool().release_unused()  # what reading needed, before vectors are written out per row
    return MatchedVersions(row_index=position, versions=distinct, event_timestamp=since)


def require_unambiguous_columns(schema: pa.Schema, event_timestamp: str, views: Sequence[ViewTable]) -> None:
    """Raise a `VitrineError` if rows of this schema lack a key or the time, or a column would stand twice."""
    wanted = {event_timestamp: "the time"} | {key: f"feature view `{view.name}`" for view in views for key in view.keys}
    for column, reason in wanted.items():
        if column not in schema.names:
            raise VitrineError(
                f"the entity rows have no column `{column}`, wanted for {reason}; they have {schema.names}"
            )
    taken = dict.fromkeys(schema.names, "the entity rows")
    for view in views:
        for feature in view.features:
            if feature in taken:
                raise VitrineError(
                    f"column `{feature}` comes from {taken[feature]} and from feature view `{view.name}`; "
                    "ask with full_feature_names=True, or rename one"
                )
            taken[feature] = f"feature view `{view.name}`"


def require_kept_versions(views: Sequence[ViewTable], known_at: Sequence[datetime]) -> None:
    """Raise a `VitrineError` if a view's table can no longer tell what was known at one of these moments."""
    for view in views:
        if known_at and view.kept_since and view.created_timestamp and min(known_at) < view.kept_since:
            raise VitrineError(
                f"feature view `{view.name}`: what was known at {min(known_at).isoformat()} cannot be told any more; "
                f"versions corrected before {view.kept_since.isoformat()} have been dropped, as `retention_days` says"
            )
