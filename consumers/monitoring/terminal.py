"""Output of the check commands: tables for a terminal, and the JSON report.

In the JSON report timestamps are ISO 8601, ages are seconds, and undefined or infinite numbers are null.
"""

import math
from datetime import datetime, timedelta
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from consumers.monitoring.consistency.check import Consistency
from consumers.monitoring.consistency.row_checks import FAULTS
from consumers.monitoring.drift.check import Drift
from consumers.monitoring.freshness.freshness import Freshness, ViewFreshness
from consumers.monitoring.freshness.lags import DurationQuantiles, SliceFreshness
from consumers.monitoring.freshness.report import FreshnessBySlice
from consumers.report_json import report_to_json
from feature_repo.durations import format_duration


def as_json(result: Any) -> str:
    """Return a check's result as JSON text. The keys are its field names, then "breaches".

    Other properties are left out. NaN and infinity become null.

    Args:
        result: a dataclass with the property `breaches`.
    """
    return report_to_json(result, breaches=result.breaches)


def freshness_table(freshness: Freshness) -> Table:
    """Return a table with one row for each view, in the order given; the lag of late ones is red.

    A caption counts ignored rows, if there are any. "-" stands for an unknown time or age.
    """
    table = Table(
        title=f"freshness at {_format_time(freshness.now)} UTC",
        title_justify="left",
        title_style="bold",
        caption="\n".join(_count_ignored(view) for view in freshness.views if view.after_now or view.untimed) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,  # so that the longest view name and all columns fit in 80 characters
    )
    table.add_column("view", no_wrap=True)
    for heading in ("newest event", "lag", "newest created", "age", "covered"):
        table.add_column(heading, justify="right", min_width=10 if heading.startswith("newest") else None)
    for view in freshness.views:
        table.add_row(
            view.view,
            _format_time(view.newest_event),
            Text(_format_age(view.lag_seconds), style="red" if view.breach else "green"),
            _format_time(view.newest_created),
            "after --now" if _is_after(view.newest_created, freshness.now) else _format_age(view.age_seconds),
            _format_covered(view.covered, freshness.active),
        )
    return table


def _count_ignored(view: ViewFreshness) -> str:
    return f"{view.view}: ignored rows: {view.after_now:,} after now, {view.untimed:,} without a timestamp"


def _format_time(timestamp: datetime | None) -> str:
    return f"{timestamp:%Y-%m-%d %H:%M}" if timestamp else "-"


def _is_after(timestamp: datetime | None, now: datetime) -> bool:
    return timestamp is not None and timestamp > now


def _format_age(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(timedelta(seconds=seconds))


def _format_covered(covered: int | None, active: int | None) -> str:
    if covered is None:
        return "-"
    return "unknown" if active is None else f"{covered:,} of {active:,}"


def slice_tables(report: FreshnessBySlice) -> list[Table]:
    """Return the tables of a report, to be printed one below the other.

    They are: for each view a table of its groups of products (slices), in the order of the report; one of refused rows,
    if there are any; and one of the views' last writes. "-" stands for an unknown time and an undefined share or age.
    """
    views = dict.fromkeys(measured.view for measured in report.slices)
    tables = [_slice_table(view, [one for one in report.slices if one.view == view]) for view in views]
    if report.quarantined:
        refused = _new_table("refused, or repaired and kept", "step", "reason", "rows")
        for count in report.quarantined:
            refused.add_row(count.step, count.reason, f"{count.rows:,}")
        tables.append(refused)
    runs = _new_table("last written (UTC)", "view", "produced", "materialized", "online up to")
    for view in report.view_runs:
        runs.add_row(view.view, *map(_format_time, (view.produced, view.materialized, view.watermark)))
    return [*tables, runs]


def _slice_table(view: str, slices: list[SliceFreshness]) -> Table:
    headings = ("slice", "active", "covered", "online", "lag", "served", "served age")
    table = _new_table(f"{view}: p50 / p95 / p99", *headings)
    for measured in slices:
        waiting = f", {measured.waiting:,} waiting" if measured.waiting else ""
        table.add_row(
            measured.slice,
            f"{measured.active:,}",
            _format_percent(measured.coverage),
            _format_percent(measured.online / measured.active if measured.active else float("nan")),
            _format_quantiles(measured.lag) + waiting,
            _format_percent(measured.served_coverage),
            _format_quantiles(measured.served_age),
        )
    return table


def _new_table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    return table


def _format_quantiles(quantiles: DurationQuantiles) -> str:
    if not quantiles.n:
        return "-"
    seconds = (quantiles.p50, quantiles.p95, quantiles.p99)
    return " / ".join(format_duration(timedelta(seconds=value)).split()[0] for value in seconds)


def _format_percent(share: float) -> str:
    return "-" if share != share else f"{share:.1%}"


def consistency_table(result: Consistency) -> Table:
    """Return a table with one row for each view that was checked, ordered by name; counts of faults are red if not 0.

    The caption names the views that were not checked and why, and has examples of the faults.
    """
    table = Table(
        title=f"online compared with offline at {_format_time(result.now)} UTC",
        title_justify="left",
        title_style="bold",
        caption="\n".join(_list_remarks(result)) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("view", no_wrap=True)
    for heading in ("keys", *FAULTS, "pending"):
        table.add_column(heading, justify="right")
    for view in result.views:
        if view.not_judged is None:
            faults = (Text(f"{view.faults[name]:,}", style="red" if view.faults[name] else "green") for name in FAULTS)
            table.add_row(view.view, f"{view.sampled:,}", *faults, f"{view.pending:,}")
    return table


def _list_remarks(result: Consistency) -> list[str]:
    lines = [f"{view.view}: not checked, {view.not_judged}" for view in result.views if view.not_judged]
    for view in result.views:
        if view.as_of:
            lines.append(f"{view.view}: as of the materialization up to {_format_time(view.as_of)} UTC")
        if view.young:
            lines.append(f"{view.view}: {view.young:,} rows too young to judge")
        if not view.scan_complete:
            lines.append(f"{view.view}: only the first {view.keys_scanned:,} online keys were scanned")
        if view.features:
            lines.append(f"{view.view}: " + ", ".join(f"{name} differs in {n:,}" for name, n in view.features.items()))
        if view.lowest_cosine is not None:
            lines.append(f"{view.view}: lowest cosine of vectors that differ {view.lowest_cosine:.4f}")
        lines += [f"{view.view}: {example.fault} {example.key}: {example.detail}" for example in view.examples]
    return lines


def drift_table(result: Drift) -> Table:
    """Return a table with one row for each statistic, those above their threshold in red, view by view.

    Each view has a heading row. "-" stands for an infinite threshold. The caption says what could not be compared.
    """
    window, before = (
        format_duration(timedelta(seconds=length)) for length in (result.window_seconds, result.before_seconds)
    )
    p_value = "" if result.p_value is None else f", p = {result.p_value:.4f}"
    title = (
        f"{result.products_now:,} products of the {window} up to {_format_time(result.now)} UTC, compared with "
        f"{result.products_before:,} of the {before} before{p_value}"
    )
    table = _new_table(title, "", "statistic", "value", "by chance", "threshold")
    table.caption = "\n".join(f"not compared: {line}" for line in result.not_judged) or None
    table.caption_justify = "left"
    view = ""
    for statistic in result.statistics:
        if statistic.view != view:
            view = statistic.view
            table.add_row(Text(view, style="bold"))
        style = "red" if statistic.is_alarm else "green"
        bounds = (statistic.expected, statistic.threshold)
        texts = (f"{value:.3f}" if math.isfinite(value) else "-" for value in bounds)
        table.add_row(f"  {statistic.subject}", statistic.name, Text(f"{statistic.value:.3f}", style=style), *texts)
    return table
