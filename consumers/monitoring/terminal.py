"""Freshness as a table for a terminal."""

from datetime import datetime, timedelta

from rich import box
from rich.table import Table
from rich.text import Text

from consumers.monitoring.ages import in_words
from consumers.monitoring.freshness import Freshness, ViewFreshness


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
    return "-" if seconds is None else in_words(timedelta(seconds=seconds))


def _share(covered: int, active: int | None) -> str:
    return "unknown" if active is None else f"{covered:,} of {active:,}"
