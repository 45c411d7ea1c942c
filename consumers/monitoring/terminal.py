"""Freshness as a table for a terminal."""

from datetime import datetime, timedelta

from rich import box
from rich.table import Table
from rich.text import Text

from consumers.monitoring.ages import in_words
from consumers.monitoring.freshness import Freshness


def as_table(freshness: Freshness) -> Table:
    """One row per view; the lag of a late one is red."""
    title = f"freshness at {_moment(freshness.now)} UTC"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("view", no_wrap=True)
    for heading in ("newest event", "lag", "newest created", "age", "covered", "after now"):
        table.add_column(heading, justify="right", min_width=10 if heading.startswith("newest") else None)
    for view in freshness.views:
        table.add_row(
            view.view,
            _moment(view.newest_event),
            Text(_age(view.lag_seconds), style="red" if view.breach else "green"),
            _moment(view.newest_created),
            _age(view.age_seconds),
            _share(view.covered, freshness.active),
            f"{view.after_now:,}",
        )
    return table


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "-"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return in_words(timedelta(seconds=seconds)) if seconds >= 0 else f"-{in_words(timedelta(seconds=-seconds))}"


def _share(covered: int, active: int | None) -> str:
    return "unknown" if active is None else f"{covered:,} of {active:,}"
