"""How long events take to be online, how much is covered, and how old what was served was: per view and slice.

What is measured, and from what. An event is a version of a product in the catalogue. A view answers it with its first
row of that product whose event timestamp is not earlier. That row came online when the ledger beside the online rows
(feature_repo/online/materialization_log.py) says that its file did: the moment at which a group of files had been
written. So
event-to-online lag is that moment minus the event; an event without an answer, or with one that is not online yet,
counts with the lag that it has so far, for a producer that died would look quick otherwise. A row that a stream put
online before its file was materialized came online sooner than is said here; the stream's own histogram knows. Rows of
which no moment is known (the ledger did not always keep it), or a later one than `now` (a shop judged as of its past),
have no lag and are counted.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from consumers.monitoring.freshness.slices import ALL, Shop
from consumers.monitoring.freshness.taken import Taken
from feature_repo.arrow import timestamps
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.online.materialization_log import MaterializationState
from feature_repo.schema import EVENT_TIMESTAMP, PRODUCT_ID, TIMESTAMP

VERSION = "encoder_version"
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Spread:
    """Quantiles of n durations in seconds; NaN where there is none."""

    n: int
    p50: float
    p95: float
    p99: float

    @staticmethod
    def of(seconds: pd.Series) -> "Spread":
        known = seconds.dropna().to_numpy(float)
        values = np.quantile(known, QUANTILES) if len(known) else [float("nan")] * len(QUANTILES)
        return Spread(len(known), *map(float, values))


@dataclass(frozen=True)
class SliceFreshness:
    """One slice of one view. Ages and lags in seconds."""

    view: str
    slice: str
    active: int
    covered: int
    """Active products with a row of an event up to now."""
    online: int
    """Of them, those with such a row online."""
    lag: Spread
    """From event to online, of the events in the window."""
    waiting: int
    """Of those events, how many are not online yet; their lag is what it is so far."""
    unmeasured: int
    """Of those events, how many are online and nobody knows since when before now."""
    age: Spread
    """From a product's newest row to now."""
    impressions: int
    """In the window; 0 where no log was given."""
    served: int
    """Of the impressions, those whose product had a row by then."""
    served_age: Spread
    """From the row that held to the impression."""

    @property
    def coverage(self) -> float:
        """Share of the active products; NaN if there are none."""
        return self.covered / self.active if self.active else float("nan")

    @property
    def served_coverage(self) -> float:
        """Share of the impressions; NaN if there are none."""
        return self.served / self.impressions if self.impressions else float("nan")


@dataclass(frozen=True)
class Timeline:
    """The rows of one view up to now, oldest event first."""

    view: str
    rows: pd.DataFrame
    """`product`, `event`, `online`, `moment` (when it came online; NaT if unknown), `version` (None if the view has
    none)."""

    @staticmethod
    def read(path: Path, ledger: MaterializationState | None, now: datetime) -> "Timeline | None":
        """A view's rows; None if there is no table, or its rows are not of products."""
        table = delta.open_dataset(path) if delta.exists(path) else None
        if table is None or PRODUCT_ID not in table.schema.names:
            return None
        versioned = [VERSION] if VERSION in table.schema.names else []
        found = table.to_table(columns=[PRODUCT_ID, EVENT_TIMESTAMP, *versioned])
        event, position = timestamps.to_ticks(found[EVENT_TIMESTAMP], "us"), np.arange(len(found))
        taken = Taken.of(table, ledger)
        moment = taken.moment(position)
        rows = pd.DataFrame(
            {
                "product": found[PRODUCT_ID].to_pandas(),
                "event": found[EVENT_TIMESTAMP].to_pandas(),
                "online": taken.online(position, event),
                "moment": pd.to_datetime(
                    np.where(moment == timestamps.NULL_TICKS, pd.NaT.value, moment), unit="us", utc=True
                ),
                "version": found[VERSION].to_pandas() if versioned else None,
            }
        ).dropna(subset=["product", "event"])
        rows = rows[rows["event"] <= pd.Timestamp(now)]
        return Timeline(path.name, rows.sort_values("event", kind="stable").reset_index(drop=True))


def figures(
    view: Timeline,
    shop: Shop,
    slices: dict[str, pd.Index],
    window: timedelta,
    impressions: pd.DataFrame | None,
) -> list[SliceFreshness]:
    """Every slice of one view, and one more for each encoder version that it has rows of.

    Args:
        window: events and impressions so long before now are looked at.
        impressions: `product` and `moment`, as `read_impressions` gives them; None: no log.
    """
    events = _answered(view.rows, shop, window)
    served = None if impressions is None else _served(view.rows, impressions, shop.now, window)
    found = [_slice(view, name, view.rows, shop, ids, events, served) for name, ids in slices.items()]
    everyone = slices[ALL]
    for version in sorted(view.rows["version"].dropna().unique()):
        of_version = view.rows[view.rows["version"] == version]
        mine = _answered(of_version, shop, window)
        seen = None if impressions is None else _served(of_version, impressions, shop.now, window)
        found.append(_slice(view, f"{VERSION} {version}", of_version, shop, everyone, mine, seen))
    return found


def read_impressions(file: Path) -> pd.DataFrame:
    """`product` and `moment` of each impression, oldest first.

    Raises:
        VitrineError: the file cannot be read, or lacks one of the columns.
    """
    try:
        log = pq.read_table(file, columns=[PRODUCT_ID, EVENT_TIMESTAMP])
        moment = timestamps.to_utc(log[EVENT_TIMESTAMP]).cast(TIMESTAMP, safe=False)
        frame = pd.DataFrame({"product": log[PRODUCT_ID].to_pandas(), "moment": moment.to_pandas()})
    except (OSError, pa.ArrowException, KeyError) as error:
        raise VitrineError(
            f"{file}: no Parquet file with {PRODUCT_ID} and {EVENT_TIMESTAMP} ({str(error).splitlines()[0]})"
        ) from error
    return frame.dropna().sort_values("moment", kind="stable")


def _answered(rows: pd.DataFrame, shop: Shop, window: timedelta) -> pd.DataFrame:
    """The events in the window: `product`, `event`, `online`, `moment` (of the first answer to be online)."""
    events = shop.events[shop.events["event"] > pd.Timestamp(shop.now - window)].sort_values("event", kind="stable")
    online = rows[rows["online"]].copy()
    known = online["moment"].where(online["moment"] <= pd.Timestamp(shop.now))
    # Rows are by event: seen from the end, the earliest moment of this and every later row of the product. A row whose
    # moment is unknown has that of the later ones, and of rows of one event the first has seen them all.
    product = online["product"][::-1]
    online["moment"] = known[::-1].groupby(product).cummin().groupby(product).ffill()[::-1]
    answers = online[["event", "product", "online", "moment"]].drop_duplicates(["product", "event"])
    return pd.merge_asof(events, answers, on="event", by="product", direction="forward")


def _served(rows: pd.DataFrame, impressions: pd.DataFrame, now: datetime, window: timedelta) -> pd.DataFrame:
    """The impressions in the window: `product`, `moment`, `event` (of the row that held then; NaT if none did)."""
    start, end = pd.Timestamp(now - window), pd.Timestamp(now)
    shown = impressions[(impressions["moment"] > start) & (impressions["moment"] <= end)]
    known = rows[["product", "event"]].assign(moment=rows["event"])
    return pd.merge_asof(shown, known, on="moment", by="product", direction="backward")


def _slice(
    view: Timeline,
    name: str,
    rows: pd.DataFrame,
    shop: Shop,
    ids: pd.Index,
    events: pd.DataFrame,
    served: pd.DataFrame | None,
) -> SliceFreshness:
    now = pd.Timestamp(shop.now)
    mine = rows[rows["product"].isin(ids)]
    events = events[events["product"].isin(ids)]
    online = events["online"].eq(True)
    lag = (events["moment"].where(online) - events["event"]).where(online, now - events["event"])
    shown = None if served is None else served[served["product"].isin(ids)]
    return SliceFreshness(
        view=view.view,
        slice=name,
        active=len(ids),
        covered=mine["product"].nunique(),
        online=mine.loc[mine["online"], "product"].nunique(),
        lag=Spread.of(lag.dt.total_seconds()),
        waiting=int((~online).sum()),
        unmeasured=int((online & events["moment"].isna()).sum()),
        age=Spread.of((now - mine.groupby("product")["event"].max()).dt.total_seconds()),
        impressions=0 if shown is None else len(shown),
        served=0 if shown is None else int(shown["event"].notna().sum()),
        served_age=Spread.of(
            pd.Series(dtype=float) if shown is None else (shown["moment"] - shown["event"]).dt.total_seconds()
        ),
    )
