"""Age of each view's newest rows, how many active products it covers, and what to do if it is late.

Only the keys and timestamps of the Delta tables are read. A view is late if its newest event is older than the allowed
age, or if it has no row. Rows with an event timestamp after `now` or without one are ignored: they make no view fresh
and no product active.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import run_log, schema
from feature_repo.arrow.text import normalize_ids
from feature_repo.config import Settings
from feature_repo.durations import format_duration
from feature_repo.errors import InvalidInputError, UnavailableError
from feature_repo.offline import delta, production, versions
from feature_repo.offline.input_files import read_table
from feature_repo.offline.validation import parse_text, require_columns
from feature_repo.online.catalog import FILL_AGAIN
from feature_repo.online.open_store import LMDB, REDIS, open_configured_table
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from feature_repo.views.view_tags import PRODUCERS

REQUIRED_VIEWS = (schema.CATALOGUE_TABLE, schema.EMBEDDING_TABLE, schema.TAGS_TABLE)
"""The views of every deployment. A view is computed from those before it."""
OPTIONAL_VIEWS = tuple(view for view in PRODUCERS if view not in REQUIRED_VIEWS)
"""Views that are checked only if they have a table. They are computed from the embeddings; captions from the images."""
RUNS_READ = 500
"""Newest runs in which the last successful run of each step is looked for."""
_VECTORS = (schema.CATALOGUE_TABLE, schema.EMBEDDING_TABLE)


@dataclass(frozen=True)
class ViewFreshness:
    """Freshness of one view. Field names are keys of the JSON report.

    Timestamps are UTC, ages are in seconds. Both are None if there is no table or it has no row up to now.
    """

    view: str
    """Name of the view and of its table."""
    newest_event: datetime | None
    """Newest event timestamp up to now, inclusive."""
    newest_created: datetime | None
    """Newest created timestamp of the rows with an event timestamp up to now. It can be later than now."""
    lag_seconds: float | None
    """From the newest event to now."""
    age_seconds: float | None
    """From the newest created timestamp to now. None if that is after now (a check as of the past, a wrong clock)."""
    covered: int | None
    """Active products with a row up to now; 0 if there is no table or it is unknown which products are active.

    None if the view's rows are not of products.
    """
    after_now: int
    """Ignored rows with an event timestamp after now."""
    untimed: int
    """Ignored rows without an event timestamp."""
    breach: str | None
    """What is wrong and what to do first, in one line; None if the view is fresh."""
    is_unchanged: bool = False
    """Whether it is late although its command ended well within the allowed age, and so found nothing newer."""


@dataclass(frozen=True)
class Freshness:
    """Freshness of all views. Field names are keys of the JSON report."""

    now: datetime
    """The time of the check, with a UTC offset."""
    max_age_seconds: float
    """Allowed age of the newest event, inclusive, of the views for which no other age was given."""
    active: int | None
    """Number of products on sale, each counted once; None if there is neither a list of them nor a catalogue."""
    views: list[ViewFreshness]
    """In the order in which the views are computed."""
    gaps: list[str] = field(default_factory=list)
    """One line for each view that a service names and the online store lacks, or that it has none, does not exist or
    does not answer. Empty if the deployment has no online store."""

    @property
    def breaches(self) -> list[str]:
        """One line for each late view, in the order in which the views are computed, then `gaps`."""
        return [*(view.breach for view in self.views if view.breach), *self.gaps]


def check(
    settings: Settings,
    *,
    max_age: timedelta,
    now: datetime,
    products: Path | None = None,
    max_ages: Mapping[str, timedelta] | None = None,
    table_format: TableFormat = DEFAULT_FORMAT,
) -> Freshness:
    """Check every view that `list_views` returns. A view without a table or without rows is late.

    Args:
        settings: the deployment.
        max_age: allowed age of a view's newest event, inclusive.
        now: the time of the check, with a UTC offset.
        products: Parquet or CSV with the `product_id` of every product on sale. None: the products of the catalogue up
            to now that have not been removed since.
        max_ages: allowed age for some views by name, instead of `max_age`; other names are ignored. None for none.
        table_format: what the user says about `products`.

    Raises:
        InvalidInputError: `products` cannot be read or has no column `product_id`.
    """
    active = read_active_products(settings, products, now, table_format)
    views: dict[str, ViewFreshness] = {}
    ended = _read_last_ends(settings)
    for view in list_views(settings):
        views[view] = _check_view(settings, view, active, (max_ages or {}).get(view, max_age), now, views, ended)
    count = None if active is None else len(active)
    return Freshness(now, max_age.total_seconds(), count, list(views.values()), _find_gaps(settings))


def list_views(settings: Settings) -> list[str]:
    """Return the names of the views to check, in the order in which they are computed.

    They are all REQUIRED_VIEWS, and those of OPTIONAL_VIEWS that have a table.
    """
    return [*REQUIRED_VIEWS, *(view for view in OPTIONAL_VIEWS if delta.exists(settings.table(view)))]


def upstream_views(view: str) -> tuple[str, ...]:
    """Return the names of the views that a view is computed from, in the order in which they are computed.

    Args:
        view: one of REQUIRED_VIEWS or OPTIONAL_VIEWS; another name raises ValueError. The catalogue gives ().
    """
    if view in OPTIONAL_VIEWS:
        return _VECTORS[:1] if view == schema.CAPTION_TABLE else _VECTORS
    return REQUIRED_VIEWS[: REQUIRED_VIEWS.index(view)]


def describe_repair(view: str, views: Mapping[str, ViewFreshness], *, has_rows: bool) -> str:
    """Return which command to run for a view that is late or incomplete, as "run `produce tags`".

    Args:
        view: the view.
        views: the views checked so far, by name.
        has_rows: whether the view has rows. If not, an upstream view that is only late is no reason to wait.

    Returns:
        The command of the first upstream view without rows; else of the first late one, unless its own run has found
        nothing newer; else the view's own command.
    """
    upstream = [views[name] for name in upstream_views(view) if name in views]
    empty = (one.view for one in upstream if one.newest_event is None)
    late = (one.view for one in upstream if has_rows and one.breach and not one.is_unchanged)
    first = next(empty, None) or next(late, None)
    return (
        f"run `{PRODUCERS[first]}` first, because it is computed from {first}" if first else f"run `{PRODUCERS[view]}`"
    )


def read_active_products(
    settings: Settings, products: Path | None, now: datetime, table_format: TableFormat = DEFAULT_FORMAT
) -> pa.Array | None:
    """Return the ids of the products on sale, each once, in no particular order.

    Args:
        settings: the deployment.
        products: Parquet or CSV with their `product_id`, where nulls are ignored. None: the products of the catalogue
            up to `now` that have not been removed by then.
        now: the time for which to read the catalogue, inclusive, with a UTC offset. Not used if there is a file.
        table_format: what the user says about the file.

    Returns:
        Strings without nulls; None if there is neither a file nor a catalogue.

    Raises:
        InvalidInputError: `products` cannot be read or has no column `product_id`.
    """
    if products is None:
        path = settings.table(schema.CATALOGUE_TABLE)
        return (
            versions.read_active_products(path, settings.table(schema.ACTIVE_TABLE), now)
            if delta.exists(path)
            else None
        )
    table = read_table(products, [PRODUCT_ID], table_format=table_format)
    require_columns(table, [PRODUCT_ID], products)
    return pc.unique(normalize_ids(parse_text(table, PRODUCT_ID, products)).drop_null())


def _find_gaps(settings: Settings) -> list[str]:
    """Return what the online store lacks, in one line each; empty if there is none, or one of another kind."""
    online_store = settings.raw.get("online_store")
    if not isinstance(online_store, dict) or online_store.get("type") not in (LMDB, REDIS):
        return []
    try:
        online = open_configured_table(settings)
        if online is None:
            return [f"the online store does not exist: it is new, or its files were deleted; {FILL_AGAIN}"]
        try:
            return online.catalog.reload().find_gaps()
        finally:
            online.store.close()
    except UnavailableError as error:
        return [str(error)]


def _check_view(
    settings: Settings,
    view: str,
    active: pa.Array | None,
    max_age: timedelta,
    now: datetime,
    earlier: Mapping[str, ViewFreshness],
    ended: Mapping[str, datetime],
) -> ViewFreshness:
    """Check one view. `earlier` are the views before it, `ended` the ends of the commands' last successful runs."""
    path = settings.table(view)
    repair = describe_repair(view, earlier, has_rows=False)
    if not delta.exists(path):
        return ViewFreshness(view, None, None, None, None, 0, 0, 0, f"{view}: the table does not exist; {repair}")
    has_products = view != schema.INTEREST_TABLE
    names = [*([PRODUCT_ID] if has_products else []), EVENT_TIMESTAMP, CREATED_TIMESTAMP]
    rows = delta.read(path, names, where=production.rows_filter(path))
    counted = rows.filter(pc.field(EVENT_TIMESTAMP) <= pa.scalar(now, rows.schema.field(EVENT_TIMESTAMP).type))
    untimed = rows[EVENT_TIMESTAMP].null_count
    after_now = len(rows) - len(counted) - untimed
    newest = pc.max(counted[EVENT_TIMESTAMP]).as_py()
    created = pc.max(counted[CREATED_TIMESTAMP]).as_py()
    breach, is_unchanged = None, False
    if newest is None:
        ignored = [f"{after_now:,} after now"] * (after_now > 0) + [f"{untimed:,} without a timestamp"] * (untimed > 0)
        clause = f", but {' and '.join(ignored)}: the clock or the source is wrong" if ignored else ""
        breach = f"{view}: no row up to now{clause}; {repair}"
    elif now - newest > max_age:
        age, allowed = format_duration(now - newest), format_duration(max_age)
        own_end = ended.get(PRODUCERS[view])
        is_unchanged = own_end is not None and own_end <= now and now - own_end <= max_age
        repair = describe_repair(view, earlier, has_rows=True)
        if is_unchanged and repair == f"run `{PRODUCERS[view]}`":
            repair = _describe_unchanged(view, earlier, ended, now)
        breach = f"{view}: newest event {age} ago, at most {allowed} allowed; {repair}"
    covered = None if not has_products else 0 if active is None else _count_covered(counted, active)
    return ViewFreshness(
        view=view,
        newest_event=newest,
        newest_created=created,
        lag_seconds=None if newest is None else (now - newest).total_seconds(),
        age_seconds=None if created is None or created > now else (now - created).total_seconds(),
        covered=covered,
        after_now=after_now,
        untimed=untimed,
        breach=breach,
        is_unchanged=is_unchanged,
    )


def _describe_unchanged(
    view: str, earlier: Mapping[str, ViewFreshness], ended: Mapping[str, datetime], now: datetime
) -> str:
    """Return what to do for a view whose command, or that of the first view upstream of it, has found nothing newer."""
    upstream = (name for name in upstream_views(view) if name in earlier and earlier[name].is_unchanged)
    first = next(upstream, view)
    ago = format_duration(now - ended[PRODUCERS[first]])
    found = f"`{PRODUCERS[first]}` ended {ago} ago and found nothing newer"
    if first != view:
        return f"{found}, and this view is computed from {first}"
    return f"{found}: check the event timestamps of its source, or allow a higher age"


def _read_last_ends(settings: Settings) -> dict[str, datetime]:
    """Return when the last successful run of each command ended; empty if the run log cannot be read.

    They only make a line more precise, so a database that does not answer is no reason to fail.
    """
    with suppress(UnavailableError, InvalidInputError):
        runs = run_log.read_last_runs(settings, RUNS_READ)
        return {f"produce {run.step}": run.ended for run in reversed(runs) if run.ending == run_log.DONE and run.ended}
    return {}


def _count_covered(rows: pa.Table, active: pa.Array) -> int:
    """Return how many active products have a row."""
    return pc.sum(pc.is_in(pc.unique(rows[PRODUCT_ID]), value_set=active)).as_py() or 0
