"""The page for whoever is on call: GET /status, what the checks found last, live.

    GET /status           the page; it asks for itself again every few seconds
    GET /status/figures   the same figures as JSON
    GET /status/lift      the lift report, where one was named at the start

Nothing is computed for a request: the figures are the watcher's. Styles and script are in the page; it loads nothing.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from consumers.monitoring.watcher import State, States
from feature_repo.durations import format_duration

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "No lift report was named at the start."}}
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
REPORT_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}


def router(states: States, clock: Callable[[], datetime], *, lift_report: Path | None = None) -> APIRouter:
    """The page's routes.

    Args:
        states: `Watcher.states`.
        clock: the time, with a zone, from which ages are told.
        lift_report: what `consume lift --report` wrote; its link is left out where there is none.
    """
    routes = APIRouter()

    @routes.get("/status", response_class=HTMLResponse)
    def status() -> HTMLResponse:
        """What the checks found last, for people."""
        return HTMLResponse(render(states(), clock(), has_report=_is_there(lift_report)), headers=HEADERS)

    @routes.get("/status/figures", response_class=JSONResponse)
    def figures() -> dict[str, Any]:
        """What the checks found last, for programs."""
        return {
            state.check.name: {
                "refreshed": state.refreshed and state.refreshed.isoformat(),
                "tried": state.tried and state.tried.isoformat(),
                "seconds": state.seconds,
                "failure": state.failure and "the check failed; the service's page says how",
                "figures": state.figures,
            }
            for state in states()
        }

    @routes.get("/status/lift", response_class=HTMLResponse, responses=NOT_FOUND)
    def lift() -> Response:
        """The lift report."""
        if lift_report is None or not lift_report.is_file():
            return JSONResponse({"error": "NOT_FOUND", "message": "no lift report was named at the start"}, 404)
        return FileResponse(lift_report, media_type="text/html", headers=REPORT_HEADERS)

    return routes


def render(states: list[State], now: datetime, *, has_report: bool) -> str:
    """The page as HTML."""
    by_name = {state.check.name: state for state in states}
    return _template().render(
        now=now,
        states=states,
        has_report=has_report,
        alarms=[(state.check.name, line) for state in states for line in state.breaches],
        overdue=[state for state in states if _overdue(state, now)],
        **{name: by_name[name].figures if name in by_name else None for name in ("freshness", "consistency", "drift")},
    )


def _overdue(state: State, now: datetime) -> bool:
    """Whether the figures are older than two rounds: the check hangs, or fails."""
    return state.refreshed is not None and now - state.refreshed > 2 * state.check.every + timedelta(minutes=1)


def _is_there(file: Path | None) -> bool:
    return file is not None and file.is_file()


@lru_cache(1)
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ago": _ago, "age": _age, "percent": _percent, "moment": _moment, "figure": _figure}
    environment.filters["short"] = _short
    return environment.get_template("status.html")


def _ago(moment: datetime | str | None, now: datetime) -> str:
    if moment is None:
        return "never"
    then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"{format_duration(now - then)} ago" if then <= now else f"in {format_duration(then - now)}"


def _age(seconds: float | None) -> str:
    return "–" if seconds is None else format_duration(timedelta(seconds=seconds))


def _short(seconds: float | None) -> str:
    """A time of which tenths of a second count."""
    return _age(seconds) if seconds is None or seconds >= 60 else f"{seconds:.3g} s"


def _percent(parts: float, whole: float) -> str:
    return f"{parts / whole:.1%}" if whole else "–"


def _moment(moment: datetime | str | None) -> str:
    if moment is None:
        return "–"
    return f"{datetime.fromisoformat(moment) if isinstance(moment, str) else moment:%Y-%m-%d %H:%M}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
