"""The created timestamp of the rows of a run: later than that of every row that the tables have.

Of rows with one key and event timestamp the one created last counts, in the tables, in a training join and online. A
clock that was set back would therefore write rows that lose against older ones. So the time is moved behind the newest
row. A row from the far future would then draw all later ones after it; such a run is refused instead.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.arrow.timestamps import as_utc
from feature_repo.config import Settings
from feature_repo.errors import ConflictError
from feature_repo.location import Location
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP

MAX_AHEAD = timedelta(hours=1)
"""How far the newest row may lie ahead of the clock before the run is refused."""
STATISTICS_UNIT = timedelta(milliseconds=1)
"""Delta's statistics are rounded down to it."""
THIS_CLOCK = "this machine's clock"

_logger = logging.getLogger(__name__)


def choose_created_timestamp(
    settings: Settings,
    tables: Sequence[str],
    now: datetime,
    *,
    others: Mapping[str, datetime] | None = None,
    clock: str = THIS_CLOCK,
) -> datetime:
    """Return the created timestamp of a run's rows: `now`, or a time just after the newest row that exists.

    A warning names the clock if it is not `now`. Call it with the lock of the step held, before rows are read.

    Args:
        settings: the deployment.
        tables: the tables that the run writes rows to; those that do not exist count as empty.
        now: what the clock says, with a time zone.
        others: further times that the result must be later than, each with its name in messages.
        clock: the clock's name in messages.

    Raises:
        ConflictError: the newest row lies more than MAX_AHEAD after `now`.
        CorruptDataError: a table is damaged.
    """
    newest = {name: time + timedelta(microseconds=1) for name, time in (others or {}).items()}
    for table in tables:
        after = find_time_after(settings.table(table))
        if after is not None:
            newest[f"table `{table}`"] = after
    name, after = max(newest.items(), key=lambda item: item[1], default=("", now))
    if after <= now:
        return now
    said = f"{clock} says {_format(now)}, and the newest row of {name} was created at {_format(after)}"
    if after - now > MAX_AHEAD:
        raise ConflictError(
            f"{said}, {after - now} later, so rows written now would lose against it: set the clock; if it is right, "
            "the row is from a clock that was ahead: docs/how-to/on-call.md says how to repair it"
        )
    _logger.warning("%s: the rows of this run get the later time; set the clock", said)
    return after


def find_time_after(path: Location) -> datetime | None:
    """Return a time that is later than the created timestamp of every row of a table, by at most a millisecond.

    The statistics of Delta's log are read, and a column only if a file has none. None without a table, without rows,
    and for a table without created timestamps.

    Raises:
        CorruptDataError: the table is damaged.
    """
    if not delta.exists(path):
        return None
    table = delta.open_table(path)
    files = pa.table(table.get_add_actions(flatten=True))
    name = f"max.{CREATED_TIMESTAMP}"
    if name in files.column_names and not files[name].null_count:
        newest, unit = pc.max(files[name]).as_py(), STATISTICS_UNIT
    elif CREATED_TIMESTAMP in delta.open_dataset(path).schema.names:
        newest, unit = pc.max(delta.read(path, [CREATED_TIMESTAMP])[CREATED_TIMESTAMP]).as_py(), timedelta.resolution
    else:
        return None
    if newest is None:
        return None
    return as_utc(newest) + unit


def _format(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
