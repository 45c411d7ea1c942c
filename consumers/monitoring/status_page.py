"""The status page: the last results of the checks.

    GET /status           the page, which reloads itself every few seconds
    GET /status/figures   the same results as JSON
    GET /status/lift      the lift report, if the server was started with one

A request computes nothing; the results are the watcher's. The page contains its styles and its script, and loads no
other resource.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from consumers.monitoring.watcher import CheckState, ReadStates
from feature_repo.durations import format_duration

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "The server was started without a lift report."}}
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
REPORT_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}


def create_router(
    read_states: ReadStates, clock: Callable[[], datetime], *, lift_report: Path | None = None
) -> APIRouter:
    """Return the page's routes, which the module's docstring lists. They check no token; the server does.

    Args:
        read_states: `Watcher.states`. It is called at each request.
        clock: returns the current time with its UTC offset; ages on the page are relative to it.
        lift_report: file that `consume lift --report` wrote. If it is None, or as long as it does not exist, the page
            has no link to it and /status/lift answers 404.
    """
    routes = APIRouter()

    @routes.get("/status", response_class=HTMLResponse)
    def status() -> HTMLResponse:
        """Return the last results of the checks as a page."""
        return HTMLResponse(
            render(read_states(), clock(), has_report=lift_report is not None and lift_report.is_file()),
            headers=HEADERS,
        )

    @routes.get("/status/figures", response_class=JSONResponse)
    def figures() -> dict[str, Any]:
        """Return the last results of the checks as JSON."""
        return {
            state.check.name: {
                "refreshed": state.refreshed and state.refreshed.isoformat(),
                "tried": state.tried and state.tried.isoformat(),
                "seconds": state.seconds,
                "failure": state.failure and "the check failed; /status has its error",
                "figures": state.figures,
            }
            for state in read_states()
        }

    @routes.get("/status/lift", response_class=HTMLResponse, responses=NOT_FOUND)
    def lift() -> Response:
        """Return the lift report."""
        if lift_report is None or not lift_report.is_file():
            return JSONResponse({"error": "NOT_FOUND", "message": "the server was started without a lift report"}, 404)
        return FileResponse(lift_report, media_type="text/html", headers=REPORT_HEADERS)

    return routes


def render(states: list[CheckState], now: datetime, *, has_report: bool) -> str:
    """Return the page as HTML.

    Args:
        states: the state of each check, shown in this order. The figures of a check that is missing or has not
            succeeded yet are left out.
        now: the time that ages are relative to, with a UTC offset.
        has_report: whether the page links to the lift report.
    """
    by_name = {state.check.name: state for state in states}
    return _template().render(
        now=now,
        states=states,
        has_report=has_report,
        alarms=[alarm for state in states for alarm in group_by_cause(state.check.name, state.breaches)],
        causes={state.check.name: len(group_by_cause(state.check.name, state.breaches)) for state in states},
        overdue=[state for state in states if _is_overdue(state, now)],
        **{name: by_name[name].figures if name in by_name else None for name in ("freshness", "consistency", "drift")},
    )


@dataclass(frozen=True)
class Alarm:
    """Lines of a check with one cause. The arguments are kept as attributes."""

    check: str
    """Name of the check."""
    line: str
    """The first line: what is wrong and what to do first."""
    others: list[str]
    """The other lines, in their order."""


def group_by_cause(check: str, lines: Sequence[str]) -> list[Alarm]:
    """Return the lines of a check grouped by what to do first: one late table makes late what is computed from it.

    Args:
        check: the check's name.
        lines: its alarms. Lines that name the same command first are one group; a line without a command is its own.

    Returns:
        The groups in the order of their first lines.
    """
    groups: dict[str, list[str]] = {}
    for line in lines:
        command = re.search(r"`((?:produce|feast|consume|cd) [^`]+)`", line)
        groups.setdefault(command[1] if command else line, []).append(line)
    return [Alarm(check, first, others) for first, *others in groups.values()]


def _is_overdue(state: CheckState, now: datetime) -> bool:
    """Whether the figures are older than two intervals and a minute: the check hangs or fails."""
    return state.refreshed is not None and now - state.refreshed > 2 * state.check.every + timedelta(minutes=1)


@lru_cache(1)
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ago": _format_ago,
        "age": _format_age,
        "short_age": _format_short_age,
        "percent": _format_percent,
        "timestamp": _format_time,
        "number": _format_number,
    }
    return environment.get_template("status.html")


def _format_ago(timestamp: datetime | str | None, now: datetime) -> str:
    if timestamp is None:
        return "never"
    then = datetime.fromisoformat(timestamp) if isinstance(timestamp, str) else timestamp
    return f"{format_duration(now - then)} ago" if then <= now else f"in {format_duration(then - now)}"


def _format_age(seconds: float | None) -> str:
    return "–" if seconds is None else format_duration(timedelta(seconds=seconds))


def _format_short_age(seconds: float | None) -> str:
    """An age with fractions of a second if it is under a minute."""
    return _format_age(seconds) if seconds is None or seconds >= 60 else f"{seconds:.3g} s"


def _format_percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _format_time(timestamp: datetime | str | None) -> str:
    if timestamp is None:
        return "–"
    return f"{datetime.fromisoformat(timestamp) if isinstance(timestamp, str) else timestamp:%Y-%m-%d %H:%M}"


def _format_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
