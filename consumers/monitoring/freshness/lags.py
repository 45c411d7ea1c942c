"""Event-to-online lag, coverage and age of served features, by view and slice.

An event is a version of a product in the catalogue. A view answers an event with its first row of that product whose
event timestamp is not earlier. The materialization log (feature_repo/online/materialization_log.py) records when each
file of rows came online: the time at which a group of files had been written. The event-to-online lag is that time
minus the event's timestamp.

An event without an answer, or whose answer is not online yet, counts with the time that has passed so far. Otherwise a
producer that stopped would look fast. A row that a stream put online before its file was materialized came online
earlier than measured here; see first_feature.py for streams. If the log has no time for a row, or a time after `now`
(a check as of the past), the row has no lag and is counted as unmeasured.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from consumers.monitoring.freshness.event_history import MaterializedRows, follow_rewrites
from consumers.monitoring.freshness.slices import ALL, ActiveProducts
from feature_repo.arrow import timestamps
from feature_repo.location import Location
from feature_repo.offline import delta, production
from feature_repo.offline.impressions import read_impressions
from feature_repo.offline.input_files import warn_of_rows
from feature_repo.online.materialization_log import MaterializationState
from feature_repo.online.materialize import identify_file
from feature_repo.schema import EVENT_TIMESTAMP, PRODUCT_ID
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat

VERSION = "encoder_version"
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class DurationQuantiles:
    """Quantiles of n durations. Field names are keys of the JSON report."""

    n: int
    """Number of durations."""
    p50: float
    """Median in seconds; NaN if n is 0, as the other two."""
    p95: float
    """95th percentile in seconds."""
    p99: float
    """99th percentile in seconds."""

    @classmethod
    def from_seconds(cls, seconds: pd.Series) -> "DurationQuantiles":
        """Return the quantiles of durations in seconds; between two durations they are interpolated linearly.

        Args:
            seconds: durations, in any order; missing values are left out and not counted.
        """
        present = seconds.dropna().to_numpy(float)
        values = np.quantile(present, QUANTILES) if len(present) else [float("nan")] * len(QUANTILES)
        return cls(len(present), *map(float, values))


@dataclass(frozen=True)
class SliceFreshness:
    """Freshness of one group of active products (a slice) in one view. Field names are keys of the JSON report.

    The slice of an encoder version has all active products, and only the view's rows of that version.
    """

    view: str
    """Name of the view."""
    slice: str
    """"all", "new products", "category NAME" or "encoder_version VERSION"."""
    active: int
    """Active products in the slice."""
    covered: int
    """Those of them with a row up to now."""
    online: int
    """Those of them with a row online."""
    lag: DurationQuantiles
    """From event to online, one duration for each event in the window that is not in `unmeasured`."""
    waiting: int
    """Events in the window that are not online yet. Their lag is the time passed so far."""
    unmeasured: int
    """Events in the window that are online since an unknown time or a time after now. They have no lag."""
    age: DurationQuantiles
    """From the event of a product's newest row to now, one duration for each covered product."""
    impressions: int
    """Impressions in the window; 0 if there is no log."""
    served: int
    """Impressions whose product had a row at that time."""
    served_age: DurationQuantiles
    """From the event of the row in force, the product's newest row at the time, to the impression."""

    @property
    def coverage(self) -> float:
        """Share of active products with a row, from 0 to 1; NaN if there are no active products."""
        return self.covered / self.active if self.active else float("nan")

    @property
    def served_coverage(self) -> float:
        """Share of impressions whose product had a row, from 0 to 1; NaN if there are no impressions."""
        return self.served / self.impressions if self.impressions else float("nan")


@dataclass(frozen=True)
class ViewTimeline:
    """The rows of one view up to now, ordered by event timestamp."""

    view: str
    """Name of the view."""
    rows: pd.DataFrame
    """One row for each row of the table. Columns:

    `product`: the id.
    `event`: the event timestamp, UTC.
    `online`: whether the row is online.
    `online_since`: when the row's file came online, UTC; NaT if unknown.
    `version`: the encoder's version; None if the view has none.
    """

    @classmethod
    def read(cls, path: Location, state: MaterializationState | None, now: datetime) -> "ViewTimeline | None":
        """Read a view's rows up to `now`, without those that lack an id or an event timestamp.

        Rows of an encoder version that is not in production are left out.

        Args:
            path: folder of the view's Delta table; its name is the view's.
            state: the view's materialization log. Without a log (None), every row counts as online.
            now: latest event timestamp, inclusive, with a UTC offset.

        Returns:
            None if the table does not exist or its rows are not of products.
        """
        table = delta.open_dataset(path) if delta.exists(path) else None
        if table is None or PRODUCT_ID not in table.schema.names:
            return None
        if state is not None and state.files:  # the table may have been compacted since the log was read
            state = follow_rewrites(state, path, [identify_file(fragment) for fragment in table.get_fragments()])
        versions = [VERSION] if VERSION in table.schema.names else []
        columns = table.to_table(columns=[PRODUCT_ID, EVENT_TIMESTAMP, *versions])
        event_us, row_index = timestamps.to_ticks(columns[EVENT_TIMESTAMP], "us"), np.arange(len(columns))
        materialized = MaterializedRows.from_state(table, state)
        since = materialized.find_online_since(row_index)
        rows = pd.DataFrame(
            {
                "product": columns[PRODUCT_ID].to_pandas(),
                "event": columns[EVENT_TIMESTAMP].to_pandas(),
                "online": materialized.is_online(row_index, event_us),
                "online_since": pd.to_datetime(
                    np.where(since == timestamps.NULL_TICKS, pd.NaT.value, since), unit="us", utc=True
                ),
                "version": columns[VERSION].to_pandas() if versions else None,
            }
        ).dropna(subset=["product", "event"])
        production_version = production.read_version(path.parent) if versions else None
        if production_version is not None:
            rows = rows[rows["version"] == production_version]
        rows = rows[rows["event"] <= pd.Timestamp(now)]
        return cls(path.name, rows.sort_values("event", kind="stable").reset_index(drop=True))


def measure_slices(
    timeline: ViewTimeline,
    products: ActiveProducts,
    slices: dict[str, pd.Index],
    window: timedelta,
    impressions: pd.DataFrame | None,
) -> list[SliceFreshness]:
    """Measure every slice of one view, and one further slice for each encoder version that it has rows of.

    Args:
        timeline: the view's rows.
        products: the active products, and the time `now` of the check.
        slices: product ids by slice name, from `ActiveProducts.slices`; "all" must be there. An empty slice is measured
            too.
        window: events and impressions in (now - window, now] are measured.
        impressions: from `read_log`; None if there is no log, and all figures of impressions are then 0 or NaN.

    Returns:
        The slices in the order of `slices`, then the encoder versions in the order of their names.
    """
    view, rows = timeline.view, timeline.rows
    events = _match_events(rows, products, window)
    served = None if impressions is None else _match_impressions(rows, impressions, products.now, window)
    measured = [_measure_slice(view, name, rows, products, ids, events, served) for name, ids in slices.items()]
    for version in sorted(rows["version"].dropna().unique()):
        version_rows = rows[rows["version"] == version]
        version_events = _match_events(version_rows, products, window)
        version_served = (
            None if impressions is None else _match_impressions(version_rows, impressions, products.now, window)
        )
        name = f"{VERSION} {version}"
        measured.append(_measure_slice(view, name, version_rows, products, slices[ALL], version_events, version_served))
    return measured


def read_log(file: Path, table_format: TableFormat = DEFAULT_FORMAT) -> pd.DataFrame:
    """Return one row for each usable impression, ordered by time: columns `product` (id) and `shown` (UTC).

    Args:
        file: Parquet or CSV with `product_id` and `event_timestamp`, perhaps also other columns of schema.IMPRESSIONS.
            It may have no rows. Rows that `offline.impressions.read_impressions` refuses are left out with a warning.
            No row is too late here: a check as of the past ignores what was shown later.
        table_format: what the user says about the file.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: the file cannot be read or lacks one of the two columns, or none of its rows is usable.
    """
    end = datetime.max.replace(tzinfo=UTC)
    required = [PRODUCT_ID, EVENT_TIMESTAMP]
    log = read_impressions(file, now=end, table_format=table_format, required=required, allow_empty=True)
    warn_of_rows(log.refused)
    columns = {"product": log.table[PRODUCT_ID].to_pandas(), "shown": log.table[EVENT_TIMESTAMP].to_pandas()}
    return pd.DataFrame(columns).sort_values("shown", kind="stable")


def _match_events(rows: pd.DataFrame, products: ActiveProducts, window: timedelta) -> pd.DataFrame:
    """Return the events in the window: `product`, `event`, and `online`, `online_since` of the first answer online."""
    now = pd.Timestamp(products.now)
    events = products.events[products.events["event"] > now - window].sort_values("event", kind="stable")
    online = rows[rows["online"]].copy()
    since = online["online_since"].where(online["online_since"] <= now)
    # Rows are ordered by event. From the end, take the earliest time of this and every later row of the product. A row
    # whose time is unknown gets that of the later rows. Of several rows of one event, the first holds the minimum.
    product = online["product"][::-1]
    online["online_since"] = since[::-1].groupby(product).cummin().groupby(product).ffill()[::-1]
    answers = online[["event", "product", "online", "online_since"]].drop_duplicates(["product", "event"])
    return pd.merge_asof(events, answers, on="event", by="product", direction="forward")


def _match_impressions(rows: pd.DataFrame, impressions: pd.DataFrame, now: datetime, window: timedelta) -> pd.DataFrame:
    """Return the impressions in the window: `product`, `shown`, and `event` of the row in force (NaT if none was)."""
    start, end = pd.Timestamp(now - window), pd.Timestamp(now)
    recent = impressions[(impressions["shown"] > start) & (impressions["shown"] <= end)]
    in_force = rows[["product", "event"]].assign(shown=rows["event"])
    return pd.merge_asof(recent, in_force, on="shown", by="product", direction="backward")


def _measure_slice(
    view: str,
    name: str,
    rows: pd.DataFrame,
    products: ActiveProducts,
    ids: pd.Index,
    events: pd.DataFrame,
    served: pd.DataFrame | None,
) -> SliceFreshness:
    now = pd.Timestamp(products.now)
    slice_rows = rows[rows["product"].isin(ids)]
    events = events[events["product"].isin(ids)]
    online = events["online"].eq(True)
    lag = (events["online_since"].where(online) - events["event"]).where(online, now - events["event"])
    shown = None if served is None else served[served["product"].isin(ids)]
    no_seconds = pd.Series(dtype=float)
    served_seconds = no_seconds if shown is None else (shown["shown"] - shown["event"]).dt.total_seconds()
    age = now - slice_rows.groupby("product")["event"].max()
    return SliceFreshness(
        view=view,
        slice=name,
        active=len(ids),
        covered=slice_rows["product"].nunique(),
        online=slice_rows.loc[slice_rows["online"], "product"].nunique(),
        lag=DurationQuantiles.from_seconds(lag.dt.total_seconds()),
        waiting=int((~online).sum()),
        unmeasured=int((online & events["online_since"].isna()).sum()),
        age=DurationQuantiles.from_seconds(age.dt.total_seconds()),
        impressions=0 if shown is None else len(shown),
        served=0 if shown is None else int(shown["event"].notna().sum()),
        served_age=DurationQuantiles.from_seconds(served_seconds),
    )
