"""Freshness as a table for a terminal."""

from datetime import datetime, timedelta

from rich.table import Table

from consumers.monitoring.ages import in_words
from consumers.monitoring.freshness import Freshness


def as_table(freshness: Freshness) -> Table:
    """One row per view."""
    title = f"freshness at {_moment(freshness.now)}"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("view")
    for heading in ("newest event", "lag", "newest created", "age", "products covered", "rows after now", ""):
        table.add_column(heading, justify="right")
    for view in freshness.views:
        table.add_row(
            view.view,
            _moment(view.newest_event),
            _age(view.lag_seconds),
            _moment(view.newest_created),
            _age(view.age_seconds),
            _share(view.covered, freshness.active),
            f"{view.after_now:,}",
            "[red]late[/red]" if view.breach else "[green]fresh[/green]",
        )
    return table


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}Z" if moment else "-"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return in_words(timedelta(seconds=seconds)) if seconds >= 0 else f"-{in_words(timedelta(seconds=-seconds))}"


def _share(covered: int, active: int | None) -> str:
    if active is None:
        return "unknown"
    return f"{covered:,} of {active:,}" + (f" ({covered / active:.1%})" if active else "")
