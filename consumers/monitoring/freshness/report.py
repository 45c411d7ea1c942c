"""Freshness by view and slice, held against objectives: what is late, and what to do first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from consumers.monitoring.freshness import first_feature, freshness, lags
from consumers.monitoring.freshness.first_feature import FirstFeature
from consumers.monitoring.freshness.freshness import OPTIONAL, WRITTEN_BY, Freshness, made_from, views_of
from consumers.monitoring.freshness.lags import SliceFreshness
from consumers.monitoring.freshness.objectives import AGES, SHARES, Objectives
from consumers.monitoring.freshness.slices import ALL, Shop
from feature_repo import run_log, schema
from feature_repo.config import Settings
from feature_repo.durations import format_duration
from feature_repo.offline import delta, quarantine
from feature_repo.online import materialization_log
from feature_repo.online.materialization_log import MaterializationState
from feature_repo.online.open_store import open_configured_table
from feature_repo.run_log import RunRecord
from feature_repo.schema import CREATED_TIMESTAMP

COMMANDS = WRITTEN_BY | OPTIONAL
RUNS_SHOWN = 20
MATERIALIZE = "`cd feature_repo && feast materialize-incremental $(date -u +%FT%T)`"


@dataclass(frozen=True)
class ViewRuns:
    """When a view was last written. Times are UTC; None where nobody knows."""

    view: str
    produced: datetime | None
    """When the producer's last successful run ended, as the ledger of runs says; else the table's newest commit."""
    materialized: datetime | None
    """When the last materialization ended that left nothing to do."""
    watermark: datetime | None
    """The event time up to which all that the table had then is online."""


@dataclass(frozen=True)
class Quarantined:
    """Rows that a step refused, or took in after a repair (the reason then ends in "kept"), in the window."""

    step: str
    reason: str
    rows: int


@dataclass(frozen=True)
class FreshnessBySlice:
    """Everything about freshness at one moment."""

    views: Freshness
    window_seconds: float
    slices: list[SliceFreshness]
    quarantined: list[Quarantined]
    view_runs: list[ViewRuns]
    runs: list[RunRecord]
    """The newest runs of producers, the newest first; empty where there is no ledger."""
    first_feature: FirstFeature | None
    """Of the products that a stream took in, in the window; None where there is no stream."""
    missed: list[str]
    """Objectives that are not met: what is wrong, and what to do first."""

    @property
    def breaches(self) -> list[str]:
        """One line each: late views first, then the objectives."""
        return [*self.views.breaches, *self.missed]


def look(
    settings: Settings,
    *,
    now: datetime,
    max_age: timedelta,
    objectives: Objectives,
    window: timedelta,
    new_for: timedelta,
    categories: int,
    products: Path | None = None,
    impressions: Path | None = None,
) -> FreshnessBySlice:
    """Judge every view and slice.

    Args:
        now: with a time zone.
        max_age: of a view's newest event, where the objectives name none.
        window: events, impressions and quarantined rows so long before now are looked at.
        new_for: how long a product is new.
        categories: how many are looked at, the largest first.
        products: Parquet of what is on sale; else the catalogue up to now.
        impressions: Parquet of what was shown.

    Raises:
        VitrineError: a file cannot be read, or the online store or the ledger of runs does not answer.
    """
    views = views_of(settings)
    bounds = {view: objectives.of_view(view).get("max_age") for view in views}
    allowed = {view: timedelta(seconds=seconds) for view, seconds in bounds.items() if seconds is not None}
    found = freshness.check(settings, max_age=max_age, now=now, products=products, max_ages=allowed)
    ledgers = _ledgers(settings, views)
    slices: list[SliceFreshness] = []
    if delta.exists(settings.table(schema.CATALOGUE_TABLE)):
        active = freshness.active_products(settings, products, now)
        shop = Shop.at(settings, now, active)
        chosen = shop.slices(new_for, categories)
        log = None if impressions is None else lags.read_impressions(impressions)
        for view in views:
            rows = lags.Timeline.read(settings.table(view), ledgers.get(view), now)
            if rows is not None:
                slices += lags.figures(rows, shop, chosen, window, log)
    last = run_log.read_last_runs(settings, 500)
    view_runs = [_runs_of(settings, view, ledgers.get(view), last) for view in views]
    by_slice = FreshnessBySlice(
        views=found,
        window_seconds=window.total_seconds(),
        slices=slices,
        quarantined=_quarantined(settings, now, window),
        view_runs=view_runs,
        runs=last[:RUNS_SHOWN],
        first_feature=first_feature.look(settings, now, window),
        missed=[],
    )
    return replace(by_slice, missed=_missed(by_slice, objectives))


def _ledgers(settings: Settings, views: Iterable[str]) -> dict[str, MaterializationState]:
    """What has been written of each view; empty where there is no online store yet."""
    online = open_configured_table(settings)
    if online is None:
        return {}
    try:
        found = {view: materialization_log.read_state(online, view) for view in views}
    finally:
        online.store.close()
    # Without a ledger nothing of ours put rows online: a view that has none yet is not online.
    return {view: MaterializationState(0) if ledger is None else ledger for view, ledger in found.items()}


def _runs_of(settings: Settings, view: str, ledger: MaterializationState | None, last: list[RunRecord]) -> ViewRuns:
    step = COMMANDS[view].removeprefix("produce ")
    done = [run.ended for run in last if run.step == step and run.ending == run_log.DONE and run.ended]
    ends = [window.end for window in ledger.files.values()] if ledger else []
    return ViewRuns(
        view,
        done[0] if done else delta.last_append_time(settings.table(view)),
        ledger.finish_timestamp if ledger else None,
        max(ends, default=None),
    )


def _quarantined(settings: Settings, now: datetime, window: timedelta) -> list[Quarantined]:
    rows = quarantine.read(settings)
    stamp = rows.schema.field(CREATED_TIMESTAMP).type
    start, end = pa.scalar(now - window, stamp), pa.scalar(now, stamp)
    recent = rows.filter((pc.field(CREATED_TIMESTAMP) > start) & (pc.field(CREATED_TIMESTAMP) <= end))
    counted = recent.group_by(["step", "reason"]).aggregate([("row_id", "count")]).to_pylist()
    found = [Quarantined(one["step"], one["reason"], one["row_id_count"]) for one in counted]
    return sorted(found, key=lambda one: (-one.rows, one.step, one.reason))


def _missed(by_slice: FreshnessBySlice, objectives: Objectives) -> list[str]:
    """The objectives that are not met, view by view in the order in which they are made."""
    found: list[str] = []
    late: set[str] = {view.view for view in by_slice.views.views if view.breach}
    for of_view in by_slice.view_runs:
        view = of_view.view
        measured = _ages_since(of_view, by_slice.views.now)
        found += _lines(view, view, objectives.of_view(view), measured, _first_of_view(view, late))
        for one in by_slice.slices:
            if one.view != view:
                continue
            wanted = objectives.of_view(view) if one.slice == ALL else objectives.of_slice(view, one.slice)
            name = view if one.slice == ALL else f"{view}, {one.slice}"
            found += _lines(view, name, wanted, _measures(one), _first_of_slice(one, late))
    for step, rows in objectives.quarantine.items():
        refused = [one for one in by_slice.quarantined if one.step == step and not one.reason.endswith("kept")]
        total = sum(one.rows for one in refused)
        if total > rows:
            found.append(
                f"quarantine, {step}: {total:,} rows refused, at most {rows:,} allowed; look at the source of "
                f"`{refused[0].reason}` ({refused[0].rows:,} rows) first"
            )
    return found


def _lines(
    view: str, name: str, wanted: Mapping[str, float], measured: Mapping[str, float | None], first: Mapping[str, str]
) -> list[str]:
    lines = []
    for measure, bound in wanted.items():
        if measure not in measured:
            continue
        value = measured[measure]
        what = (AGES | SHARES)[measure]
        if value is None:
            lines.append(f"{name}: {what}: nobody knows; {first.get(measure, first[''])}")
        elif measure in AGES and value > bound:
            said, most = (format_duration(timedelta(seconds=seconds)) for seconds in (value, bound))
            lines.append(f"{name}: {what} {said}, at most {most} allowed; {first.get(measure, first[''])}")
        elif measure in SHARES and value < bound:
            lines.append(f"{name}: {what} {value:.1%}, at least {bound:.1%} wanted; {first.get(measure, first[''])}")
    return lines


def _ages_since(of_view: ViewRuns, now: datetime) -> dict[str, float | None]:
    """Seconds since each moment of a view; None where it is unknown, 0 where it lies after now."""
    moments = {
        "last_run": of_view.produced,
        "materialized": of_view.materialized,
        "watermark": of_view.watermark,
    }
    return {name: None if one is None else max(0.0, (now - one).total_seconds()) for name, one in moments.items()}


def _measures(one: SliceFreshness) -> dict[str, float]:
    """What a slice shows, without what is undefined: of no event there is no lag."""
    found = {
        "lag_p50": one.lag.p50,
        "lag_p95": one.lag.p95,
        "lag_p99": one.lag.p99,
        "age_p95": one.age.p95,
        "served_age_p50": one.served_age.p50,
        "served_age_p95": one.served_age.p95,
        "served_age_p99": one.served_age.p99,
        "coverage": one.coverage,
        "online": one.online / one.active if one.active else float("nan"),
        "served_coverage": one.served_coverage,
    }
    return {name: value for name, value in found.items() if value == value}


def _produce(view: str, late: set[str]) -> str:
    """The producer to run: that of the first late view which this one is made from, else its own."""
    for earlier in made_from(view):
        if earlier in late:
            return f"run `{COMMANDS[earlier]}` first: it is made from {earlier}"
    return f"run `{COMMANDS[view]}`"


def _first_of_view(view: str, late: set[str]) -> dict[str, str]:
    materialize = f"run {MATERIALIZE} and see why the last one failed"
    return {"": f"{_produce(view, late)}, and see why the last run failed: `produce runs`"} | dict.fromkeys(
        ("materialized", "watermark"), materialize
    )


def _first_of_slice(one: SliceFreshness, late: set[str]) -> dict[str, str]:
    """What to do first: rows that are offline alone are materialized, those that are nowhere are produced."""
    materialize = f"its rows are offline and not online: run {MATERIALIZE}"
    produce = _produce(one.view, late)
    offline_alone = one.covered > one.online
    return {"": produce, "online": materialize if offline_alone else produce} | dict.fromkeys(
        ("lag_p50", "lag_p95", "lag_p99"), materialize if offline_alone else produce
    )
