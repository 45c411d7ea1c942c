"""What the checks found as tables for a terminal."""

import math
from datetime import datetime, timedelta

from rich import box
from rich.table import Table
from rich.text import Text

from consumers.monitoring.consistency.check import Consistency
from consumers.monitoring.consistency.row_checks import FAULTS
from consumers.monitoring.drift.check import Drift
from consumers.monitoring.freshness.freshness import Freshness, ViewFreshness
from consumers.monitoring.freshness.lags import SliceFreshness, Spread
from consumers.monitoring.freshness.report import FreshnessBySlice
from feature_repo.durations import format_duration


def as_table(freshness: Freshness) -> Table:
    """One row per view, the lag of a late one in red; below it the rows that count for nothing."""
    table = Table(
        title=f"freshness at {_moment(freshness.now)} UTC",
        title_justify="left",
        title_style="bold",
        caption="\n".join(_ignored(view) for view in freshness.views if view.after_now or view.untimed) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,  # the longest view's name and all columns in 80 characters
    )
    table.add_column("view", no_wrap=True)
    for heading in ("newest event", "lag", "newest created", "age", "covered"):
        table.add_column(heading, justify="right", min_width=10 if heading.startswith("newest") else None)
    for view in freshness.views:
        table.add_row(
            view.view,
            _moment(view.newest_event),
            Text(_age(view.lag_seconds), style="red" if view.breach else "green"),
            _moment(view.newest_created),
            "after --now" if _is_after(view.newest_created, freshness.now) else _age(view.age_seconds),
            _share(view.covered, freshness.active),
        )
    return table


def _ignored(view: ViewFreshness) -> str:
    return f"{view.view}: rows that count for nothing: {view.after_now:,} after now, {view.untimed:,} without a time"


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "-"


def _is_after(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment > now


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(timedelta(seconds=seconds))


def _share(covered: int | None, active: int | None) -> str:
    if covered is None:
        return "-"
    return "unknown" if active is None else f"{covered:,} of {active:,}"


def slice_tables(found: FreshnessBySlice) -> list[Table]:
    """A table of slices per view, one of what was refused, one of when each view was last written."""
    views = dict.fromkeys(one.view for one in found.slices)
    tables = [_slices(view, [one for one in found.slices if one.view == view]) for view in views]
    if found.quarantined:
        refused = _plain("refused, or repaired and kept", "step", "reason", "rows")
        for one in found.quarantined:
            refused.add_row(one.step, one.reason, f"{one.rows:,}")
        tables.append(refused)
    runs = _plain("last written (UTC)", "view", "produced", "materialized", "online up to")
    for view in found.view_runs:
        runs.add_row(view.view, *map(_moment, (view.produced, view.materialized, view.watermark)))
    return [*tables, runs]


def _slices(view: str, slices: list[SliceFreshness]) -> Table:
    table = _plain(f"{view}: p50 / p95 / p99", "slice", "active", "covered", "online", "lag", "served", "served age")
    for one in slices:
        waiting = f", {one.waiting:,} waiting" if one.waiting else ""
        table.add_row(
            one.slice,
            f"{one.active:,}",
            _percent(one.coverage),
            _percent(one.online / one.active if one.active else float("nan")),
            _spread(one.lag) + waiting,
            _percent(one.served_coverage),
            _spread(one.served_age),
        )
    return table


def _plain(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    return table


def _spread(spread: Spread) -> str:
    if not spread.n:
        return "-"
    return " / ".join(
        format_duration(timedelta(seconds=value)).split()[0] for value in (spread.p50, spread.p95, spread.p99)
    )


def _percent(share: float) -> str:
    return "-" if share != share else f"{share:.1%}"


def consistency_table(found: Consistency) -> Table:
    """One row per view, keys at fault in red; below it the first of them, and what was not judged."""
    table = Table(
        title=f"online beside offline at {_moment(found.now)} UTC",
        title_justify="left",
        title_style="bold",
        caption="\n".join(_remarks(found)) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("view", no_wrap=True)
    for heading in ("keys", *FAULTS, "pending"):
        table.add_column(heading, justify="right")
    for view in found.views:
        if view.not_judged is None:
            faults = (Text(f"{view.faults[name]:,}", style="red" if view.faults[name] else "green") for name in FAULTS)
            table.add_row(view.view, f"{view.sampled:,}", *faults, f"{view.pending:,}")
    return table


def _remarks(found: Consistency) -> list[str]:
    lines = [f"{view.view}: not judged, {view.not_judged}" for view in found.views if view.not_judged]
    for view in found.views:
        if view.as_of:
            lines.append(f"{view.view}: as of the materialization up to {_moment(view.as_of)} UTC")
        if view.young:
            lines.append(f"{view.view}: {view.young:,} rows too young to judge")
        if not view.scan_complete:
            lines.append(f"{view.view}: of the online keys the first {view.keys_scanned:,} were looked at")
        if view.features:
            lines.append(f"{view.view}: " + ", ".join(f"{name} differs in {n:,}" for name, n in view.features.items()))
        if view.lowest_cosine is not None:
            lines.append(f"{view.view}: lowest cosine of vectors that differ {view.lowest_cosine:.4f}")
        lines += [f"{view.view}: {example.fault} {example.key}: {example.detail}" for example in view.examples]
    return lines


def drift_table(found: Drift) -> Table:
    """One row per statistic, those over their threshold in red."""
    window, before = (format_duration(timedelta(seconds=one)) for one in (found.window_seconds, found.before_seconds))
    chance = "" if found.p_value is None else f", p = {found.p_value:.4f}"
    title = (
        f"{found.products_now:,} products of {window} up to {_moment(found.now)} UTC beside {found.products_before:,}"
    )
    table = _plain(f"{title} of {before} before{chance}", "", "statistic", "value", "by chance", "threshold")
    table.caption, table.caption_justify = "\n".join(f"not judged: {line}" for line in found.not_judged) or None, "left"
    heading = ""
    for one in found.statistics:
        if one.view != heading:
            heading = one.view
            table.add_row(Text(heading, style="bold"))
        style = "red" if one.alarm else "green"
        values = (f"{value:.3f}" if math.isfinite(value) else "-" for value in (one.expected, one.threshold))
        table.add_row(f"  {one.subject}", one.name, Text(f"{one.value:.3f}", style=style), *values)
    return table
