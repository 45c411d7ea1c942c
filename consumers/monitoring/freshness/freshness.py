"""How late each view is, how much of the shop it covers, and what to do first.

Read from the Delta tables, whose keys and times alone are opened. A view is late when its newest event lies further
back than the greatest allowed age, or when there is nothing of it; events after `now`, and rows that do not say when,
make nothing fresh and no product active.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.durations import format_duration
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, versions
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

WRITTEN_BY = {
    schema.CATALOGUE_TABLE: "produce catalogue",
    schema.EMBEDDING_TABLE: "produce embeddings",
    schema.TAGS_TABLE: "produce tags",
}
"""Each view that every shop has, and the command that writes its table; each is made from the ones before it."""
OPTIONAL = {
    schema.CODES_TABLE: "produce codes",
    schema.NEIGHBOURS_TABLE: "produce neighbours",
    schema.INTEREST_TABLE: "produce interests",
    schema.CAPTION_TABLE: "produce captions",
}
"""Views that not every shop has: watched once they have a table; made from the vectors, or from the pictures alone."""
_VECTORS = (schema.CATALOGUE_TABLE, schema.EMBEDDING_TABLE)


@dataclass(frozen=True)
class ViewFreshness:
    """One view at one moment. Times are UTC, ages in seconds; None where there is no table or no row up to now."""

    view: str
    newest_event: datetime | None
    """Of the events up to now."""
    newest_created: datetime | None
    lag_seconds: float | None
    """From the newest event to now."""
    age_seconds: float | None
    """From the newest creation to now; None where that lies after now: judged as of the past, or by a wrong clock."""
    covered: int | None
    """Active products that have a row of an event up to now; None where the rows are not of products."""
    after_now: int
    """Rows whose event lies after now: they count for nothing."""
    untimed: int
    """Rows without an event timestamp: they count for nothing."""
    breach: str | None
    """What is wrong and what to do first."""


@dataclass(frozen=True)
class Freshness:
    """Every view at one moment."""

    now: datetime
    max_age_seconds: float
    active: int | None
    """Products on sale; None if nothing says which."""
    views: list[ViewFreshness]

    @property
    def breaches(self) -> list[str]:
        """One line per late view, in the order in which the views are made."""
        return [view.breach for view in self.views if view.breach]


def check(
    settings: Settings,
    *,
    max_age: timedelta,
    now: datetime,
    products: Path | None = None,
    max_ages: Mapping[str, timedelta] | None = None,
) -> Freshness:
    """Judge every view.

    Args:
        max_age: the greatest allowed distance from a view's newest event to now, inclusive.
        now: with a time zone.
        products: Parquet with the `product_id` of every product on sale; else those of the catalogue up to now
            that have not gone since.
        max_ages: of some views, instead of `max_age`.

    Raises:
        VitrineError: `products` cannot be read.
    """
    active = active_products(settings, products, now)
    views: list[ViewFreshness] = []
    for view in views_of(settings):
        late = next((earlier.view for earlier in views if earlier.breach and earlier.view in made_from(view)), None)
        views.append(_check_view(settings, view, active, (max_ages or {}).get(view, max_age), now, late))
    return Freshness(now, max_age.total_seconds(), None if active is None else len(active), views)


def views_of(settings: Settings) -> dict[str, str]:
    """The views to watch in a deployment, in the order in which they are made, and the command that writes each."""
    return WRITTEN_BY | {view: command for view, command in OPTIONAL.items() if delta.exists(settings.table(view))}


def made_from(view: str) -> tuple[str, ...]:
    """The views that a view is made from, the first first."""
    if view in OPTIONAL:
        return _VECTORS[:1] if view == schema.CAPTION_TABLE else _VECTORS
    return tuple(WRITTEN_BY)[: list(WRITTEN_BY).index(view)]


def _check_view(
    settings: Settings, view: str, active: pa.Array | None, max_age: timedelta, now: datetime, late: str | None
) -> ViewFreshness:
    path = settings.table(view)
    commands = WRITTEN_BY | OPTIONAL
    mend = f"run `{commands[late]}` first: it is made from {late}" if late else f"run `{commands[view]}`"
    if not delta.exists(path):
        return ViewFreshness(view, None, None, None, None, 0, 0, 0, f"{view}: there is no such table; {mend}")
    of_products = view != schema.INTEREST_TABLE
    rows = delta.read(path, [*([PRODUCT_ID] if of_products else []), EVENT_TIMESTAMP, CREATED_TIMESTAMP])
    happened = _up_to(now, rows)
    untimed = rows[EVENT_TIMESTAMP].null_count
    after_now = len(rows) - len(happened) - untimed
    newest = pc.max(happened[EVENT_TIMESTAMP]).as_py()
    created = pc.max(happened[CREATED_TIMESTAMP]).as_py()
    breach = None
    if newest is None:
        faults = [f"{after_now:,} after it"] * (after_now > 0) + [f"{untimed:,} without a time"] * (untimed > 0)
        found = f" up to now, {' and '.join(faults)}: the clock or the source is wrong" if faults else ""
        breach = f"{view}: no row{found}; {mend}"
    elif now - newest > max_age:
        ago, most = format_duration(now - newest), format_duration(max_age)
        breach = f"{view}: newest event {ago} ago, at most {most} allowed; {mend}"
    covered = None if not of_products else 0 if active is None else _covered(happened, active)
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
    )


def _covered(rows: pa.Table, active: pa.Array) -> int:
    """How many of the active products have a row."""
    return pc.sum(pc.is_in(pc.unique(rows[PRODUCT_ID]), value_set=active)).as_py() or 0


def _up_to(now: datetime, rows: pa.Table) -> pa.Table:
    """The rows whose event is not after `now`; a row without a time is none of them."""
    return rows.filter(pc.field(EVENT_TIMESTAMP) <= pa.scalar(now, rows.schema.field(EVENT_TIMESTAMP).type))


def active_products(settings: Settings, products: Path | None, now: datetime) -> pa.Array | None:
    """The products on sale, each once; None if nothing says which."""
    if products is None:
        path = settings.table(schema.CATALOGUE_TABLE)
        return (
            versions.read_active_products(path, settings.table(schema.ACTIVE_TABLE), now)
            if delta.exists(path)
            else None
        )
    try:
        return pc.unique(pq.read_table(products, columns=[PRODUCT_ID])[PRODUCT_ID].cast(pa.string()).drop_null())
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise VitrineError(
            f"{products}: no Parquet file with a column {PRODUCT_ID} ({str(error).splitlines()[0]})"
        ) from error
