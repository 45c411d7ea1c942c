"""Freshness by view and slice, compared with objectives: what is late, and what to do first."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from consumers.monitoring.freshness import freshness, lags
from consumers.monitoring.freshness.event_history import read_materialization
from consumers.monitoring.freshness.first_feature import FirstFeature, measure_first_feature
from consumers.monitoring.freshness.freshness import RUNS_READ, Freshness, ViewFreshness
from consumers.monitoring.freshness.lags import SliceFreshness
from consumers.monitoring.freshness.objectives import AGES, SHARES, Objectives
from consumers.monitoring.freshness.slices import ALL, ActiveProducts
from feature_repo import run_log
from feature_repo.config import Settings
from feature_repo.durations import format_duration
from feature_repo.offline import delta, quarantine
from feature_repo.online.materialization_log import MaterializationState
from feature_repo.online.open_store import open_configured_table
from feature_repo.run_log import RunRecord
from feature_repo.schema import CATALOGUE_TABLE, CREATED_TIMESTAMP
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from feature_repo.views.view_tags import PRODUCERS

RUNS_SHOWN = 20
"""Newest runs in the report."""
MATERIALIZE = "`cd feature_repo && feast materialize-incremental $(date -u +%FT%T)`"


@dataclass(frozen=True)
class ViewRuns:
    """When one view was last written. UTC; None if unknown. Field names are keys of the JSON report."""

    view: str
    """Name of the view."""
    produced: datetime | None
    """End of the producer's last successful run among the RUNS_READ newest runs.

    If there is none, the table's last commit that added rows.
    """
    materialized: datetime | None
    """End of the last materialization that left no rows to write."""
    watermark: datetime | None
    """Event time up to which all rows that the table had then are online."""


@dataclass(frozen=True)
class QuarantineCount:
    """Rows that one step refused for one reason in the window. Field names are keys of the JSON report."""

    step: str
    """The producing step, such as "embeddings"."""
    reason: str
    """Why. Ends in "kept" if the rows were repaired and accepted."""
    rows: int
    """Number of rows, at least 1."""


@dataclass(frozen=True)
class FreshnessBySlice:
    """Freshness of all views, and of groups of products (slices) in each. Field names are keys of the JSON report."""

    views: Freshness
    """Freshness of the views as a whole, and the time of the check."""
    window_seconds: float
    """Length of the window before the check, in which events, impressions and refused rows are counted."""
    slices: list[SliceFreshness]
    """View by view, in the order in which the views are computed. In each view: all products, new products, the
    categories, the largest first, then one slice for each encoder version. Empty without a catalogue."""
    quarantined: list[QuarantineCount]
    """The largest counts first; of equal ones, by step and reason."""
    view_runs: list[ViewRuns]
    """One for each view, in the order in which the views are computed."""
    runs: list[RunRecord]
    """The producers' newest runs, the newest first; empty if there is no run log."""
    first_feature: FirstFeature | None
    """For products that a stream wrote in the window; None if no stream has ever written."""
    missed: list[str]
    """One line for each objective that is not met: what is wrong and what to do first. View by view, then the steps."""

    @property
    def breaches(self) -> list[str]:
        """One line for each late view, then what the online store lacks, then one for each missed objective.

        Empty if all is well.
        """
        return [*self.views.breaches, *self.missed]


def build_report(
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
    table_format: TableFormat = DEFAULT_FORMAT,
) -> FreshnessBySlice:
    """Measure every view, and every group of products (slice) in it, and compare them with the objectives.

    Args:
        settings: the deployment.
        now: the time of the check, with a UTC offset.
        max_age: allowed age of a view's newest event if the objectives set none, inclusive.
        objectives: what is allowed; `Objectives()` allows everything except late views.
        window: events, impressions and quarantined rows in (now - window, now] are measured.
        new_for: time after its first event for which a product is new, exclusive.
        categories: largest number of category slices in each view, the largest categories first.
        products: Parquet or CSV with the `product_id` of every product on sale; None: the products of the catalogue up
            to now that have not been removed since.
        impressions: Parquet or CSV with `product_id` and `event_timestamp` of each impression; None measures none.
        table_format: what the user says about these files.

    Raises:
        InvalidInputError: `products` or `impressions` cannot be read, or the settings of the online store or of the run
            log's database are not valid.
        CorruptDataError: the online store's file is damaged.
        UnavailableError: the online store or the database of the run log does not answer.
    """
    views = freshness.list_views(settings)
    bounds = {view: objectives.view_bounds(view).get("max_age") for view in views}
    max_ages = {view: timedelta(seconds=seconds) for view, seconds in bounds.items() if seconds is not None}
    view_freshness = freshness.check(
        settings, max_age=max_age, now=now, products=products, max_ages=max_ages, table_format=table_format
    )
    states = _read_states(settings, views)
    slices: list[SliceFreshness] = []
    if delta.exists(settings.table(CATALOGUE_TABLE)):
        active = ActiveProducts.read(
            settings, now, freshness.read_active_products(settings, products, now, table_format)
        )
        ids_by_slice = active.slices(new_for, categories)
        log = None if impressions is None else lags.read_log(impressions, table_format)
        for view in views:
            timeline = lags.ViewTimeline.read(settings.table(view), states.get(view), now)
            if timeline is not None:
                slices += lags.measure_slices(timeline, active, ids_by_slice, window, log)
    last_runs = run_log.read_last_runs(settings, RUNS_READ)
    report = FreshnessBySlice(
        views=view_freshness,
        window_seconds=window.total_seconds(),
        slices=slices,
        quarantined=_count_quarantined(settings, now, window),
        view_runs=[_read_view_runs(settings, view, states.get(view), last_runs) for view in views],
        runs=last_runs[:RUNS_SHOWN],
        first_feature=measure_first_feature(settings, now, window),
        missed=[],
    )
    return replace(report, missed=_find_missed(report, objectives))


def _read_states(settings: Settings, views: Iterable[str]) -> dict[str, MaterializationState]:
    """Return the materialization log of each view; empty if the deployment has no online store."""
    if not settings.raw.get("online_store"):
        return {}
    online = open_configured_table(settings)
    states: dict[str, MaterializationState | None] = dict.fromkeys(views)
    if online is not None:
        with closing(online.store):
            catalog = online.catalog.load()
            for view in views:
                stored_name = catalog.find_stored_name(view)
                states[view] = read_materialization(online, stored_name, settings.table(view))
    # A view without a log, or without a store, has not been materialized: none of its rows is online.
    return {view: MaterializationState(0) if state is None else state for view, state in states.items()}


def _read_view_runs(
    settings: Settings, view: str, state: MaterializationState | None, last_runs: list[RunRecord]
) -> ViewRuns:
    step = PRODUCERS[view].removeprefix("produce ")
    ended = [run.ended for run in last_runs if run.step == step and run.ending == run_log.DONE and run.ended]
    window_ends = [window.end for window in state.files.values()] if state else []
    return ViewRuns(
        view,
        ended[0] if ended else delta.last_append_time(settings.table(view)),
        state.finish_timestamp if state else None,
        max(window_ends, default=None),
    )


def _count_quarantined(settings: Settings, now: datetime, window: timedelta) -> list[QuarantineCount]:
    rows = quarantine.read(settings)
    stamp = rows.schema.field(CREATED_TIMESTAMP).type
    start, end = pa.scalar(now - window, stamp), pa.scalar(now, stamp)
    recent = rows.filter((pc.field(CREATED_TIMESTAMP) > start) & (pc.field(CREATED_TIMESTAMP) <= end))
    groups = recent.group_by(["step", "reason"]).aggregate([("row_id", "count")]).to_pylist()
    counts = [QuarantineCount(group["step"], group["reason"], group["row_id_count"]) for group in groups]
    return sorted(counts, key=lambda count: (-count.rows, count.step, count.reason))


def _find_missed(report: FreshnessBySlice, objectives: Objectives) -> list[str]:
    """Return one line for each missed objective, view by view in the order in which the views are computed."""
    lines: list[str] = []
    views = {view.view: view for view in report.views.views}
    for view_runs in report.view_runs:
        view = view_runs.view
        ages = _ages_since(view_runs, report.views.now)
        lines += _compare(view, objectives.view_bounds(view), ages, _view_repairs(view, views))
        for measured in report.slices:
            if measured.view != view:
                continue
            is_all = measured.slice == ALL
            bounds = objectives.view_bounds(view) if is_all else objectives.slice_bounds(view, measured.slice)
            name = view if is_all else f"{view}, {measured.slice}"
            lines += _compare(name, bounds, _slice_measures(measured), _slice_repairs(measured, views))
    for step, max_rows in objectives.quarantine.items():
        refused = [one for one in report.quarantined if one.step == step and not one.reason.endswith("kept")]
        total = sum(one.rows for one in refused)
        if total > max_rows:
            lines.append(
                f"quarantine, {step}: {total:,} rows refused, at most {max_rows:,} allowed; check the source of "
                f"`{refused[0].reason}` ({refused[0].rows:,} rows) first"
            )
    return lines


def _compare(
    name: str, bounds: Mapping[str, float], measures: Mapping[str, float | None], repairs: Mapping[str, str]
) -> list[str]:
    """Return one line for each bound that is missed. Bounds without a measure are skipped.

    Args:
        name: how the lines begin.
        bounds: by measure.
        measures: by name; None is unknown, which misses the bound.
        repairs: what to do first by measure, and under "" for the others.
    """
    lines = []
    for measure, bound in bounds.items():
        if measure not in measures:
            continue
        value = measures[measure]
        label = (AGES | SHARES)[measure]
        repair = repairs.get(measure, repairs[""])
        if value is None:
            lines.append(f"{name}: {label}: unknown; {repair}")
        elif measure in AGES and value > bound:
            age, max_age = (format_duration(timedelta(seconds=seconds)) for seconds in (value, bound))
            lines.append(f"{name}: {label} {age}, at most {max_age} allowed; {repair}")
        elif measure in SHARES and value < bound:
            lines.append(f"{name}: {label} {value:.1%}, at least {bound:.1%} required; {repair}")
    return lines


def _ages_since(view_runs: ViewRuns, now: datetime) -> dict[str, float | None]:
    """Return the seconds since each timestamp of a view; None if it is unknown, 0 if it lies after now."""
    by_measure = {
        "last_run": view_runs.produced,
        "materialized": view_runs.materialized,
        "watermark": view_runs.watermark,
    }
    return {
        name: None if timestamp is None else max(0.0, (now - timestamp).total_seconds())
        for name, timestamp in by_measure.items()
    }


def _slice_measures(measured: SliceFreshness) -> dict[str, float]:
    """Return a slice's measures without the undefined ones, such as the lag if there was no event."""
    measures = {
        "lag_p50": measured.lag.p50,
        "lag_p95": measured.lag.p95,
        "lag_p99": measured.lag.p99,
        "age_p95": measured.age.p95,
        "served_age_p50": measured.served_age.p50,
        "served_age_p95": measured.served_age.p95,
        "served_age_p99": measured.served_age.p99,
        "coverage": measured.coverage,
        "online": measured.online / measured.active if measured.active else float("nan"),
        "served_coverage": measured.served_coverage,
    }
    return {name: value for name, value in measures.items() if value == value}


def _producer_repair(view: str, views: Mapping[str, ViewFreshness]) -> str:
    return freshness.describe_repair(view, views, has_rows=view in views and views[view].newest_event is not None)


def _view_repairs(view: str, views: Mapping[str, ViewFreshness]) -> dict[str, str]:
    materialize = f"run {MATERIALIZE} and check why the last one failed"
    produce = f"{_producer_repair(view, views)}, and check why the last run failed: `produce runs`"
    return {"": produce, "materialized": materialize, "watermark": materialize}


def _slice_repairs(measured: SliceFreshness, views: Mapping[str, ViewFreshness]) -> dict[str, str]:
    """Materialize if there are rows that are only offline; otherwise run the producer."""
    produce = _producer_repair(measured.view, views)
    materialize = f"some rows are offline and not online: run {MATERIALIZE}"
    online = materialize if measured.covered > measured.online else produce
    return {"": produce} | dict.fromkeys(("online", "lag_p50", "lag_p95", "lag_p99"), online)
