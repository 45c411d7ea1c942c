"""What is wanted of freshness, from one TOML file (docs/objectives.toml is one, with comments).

    [defaults]                                  of every view
    [views.product_tags]                        of one view, instead of the defaults
    [views.product_embedding.slices."new products"]     of one slice of it
    [quarantine]                                rows, by step of the producer: embeddings = 100

Ages are written 90m, 6h, 2d; shares are numbers from 0 to 1. A bound is inclusive: as much as wanted is enough.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from consumers.monitoring.freshness.freshness import OPTIONAL, WRITTEN_BY
from consumers.monitoring.freshness.lags import VERSION
from consumers.monitoring.freshness.slices import ALL, CATEGORY, NEW
from feature_repo.durations import parse_duration
from feature_repo.errors import UsageError, VitrineError

AGES = {
    "max_age": "age of the newest event",
    "last_run": "time since the producer's last successful run",
    "materialized": "time since the last materialization that ended",
    "watermark": "age of the event time up to which all is online",
    "lag_p50": "event-to-online lag, p50",
    "lag_p95": "event-to-online lag, p95",
    "lag_p99": "event-to-online lag, p99",
    "age_p95": "age of the products' newest rows, p95",
    "served_age_p50": "age of what was served, p50",
    "served_age_p95": "age of what was served, p95",
    "served_age_p99": "age of what was served, p99",
}
"""At most so long."""
SHARES = {
    "coverage": "active products covered",
    "online": "active products online",
    "served_coverage": "impressions covered",
}
"""At least so much."""
OF_VIEWS = ("max_age", "last_run", "materialized", "watermark")
"""Of a whole view; the others of any slice."""
STEPS = ("catalogue", "embeddings", "tags", "captions", "interests", "neighbours", "stream", "lift")
"""Who refuses rows."""
Bounds = Mapping[str, float]


@dataclass(frozen=True)
class Objectives:
    """Bounds by view and slice: ages in seconds, at most; shares, at least."""

    defaults: Bounds = field(default_factory=dict)
    views: Mapping[str, Bounds] = field(default_factory=dict)
    slices: Mapping[tuple[str, str], Bounds] = field(default_factory=dict)
    quarantine: Mapping[str, int] = field(default_factory=dict)
    """Rows in the window, at most, by step."""

    def of_view(self, view: str) -> Bounds:
        """What is wanted of a view as a whole."""
        return {**self.defaults, **self.views.get(view, {})}

    def of_slice(self, view: str, slice_: str) -> Bounds:
        """What is wanted of a slice; of what it does not name nothing is wanted."""
        return self.slices.get((view, slice_), {})


def load(file: Path) -> Objectives:
    """Read objectives.

    Raises:
        VitrineError: the file cannot be read.
        UsageError: it is no TOML, or names what there is not.
    """
    try:
        raw = tomllib.loads(file.read_text())
    except OSError as error:
        raise VitrineError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: no TOML: {error}") from error
    _refuse_unknown(file, "", raw, {"defaults", "views", "quarantine"})
    views: dict[str, Bounds] = {}
    slices: dict[tuple[str, str], Bounds] = {}
    wanted_of = _table(file, "views", raw.get("views", {}))
    _refuse_unknown(file, "views.", wanted_of, {*WRITTEN_BY, *OPTIONAL})
    for view, wanted in wanted_of.items():
        where = f"views.{view}"
        plain = dict(_table(file, where, wanted))
        for slice_, bounds in _table(file, f"{where}.slices", plain.pop("slices", {})).items():
            if slice_ not in (ALL, NEW) and not slice_.startswith((CATEGORY, f"{VERSION} ")):
                raise UsageError(
                    f'{file}: unknown {where}.slices."{slice_}"; known there: "{ALL}", "{NEW}", "{CATEGORY}...", '
                    f'"{VERSION} ..."'
                )
            slices[view, slice_] = _bounds(file, f'{where}.slices."{slice_}"', bounds, of_slice=True)
        views[view] = _bounds(file, where, plain)
    quarantine = _table(file, "quarantine", raw.get("quarantine", {}))
    _refuse_unknown(file, "quarantine.", quarantine, set(STEPS))
    for step, rows in quarantine.items():
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
            raise UsageError(f"{file}: quarantine.{step} is {rows!r}; wanted a number of rows")
    return Objectives(_bounds(file, "defaults", raw.get("defaults", {})), views, slices, quarantine)


def _bounds(file: Path, where: str, wanted: Any, *, of_slice: bool = False) -> Bounds:
    known = {name for name in (*AGES, *SHARES) if not (of_slice and name in OF_VIEWS)}
    _refuse_unknown(file, f"{where}.", _table(file, where, wanted), known)
    return {name: _bound(file, f"{where}.{name}", name, value) for name, value in wanted.items()}


def _bound(file: Path, where: str, name: str, value: Any) -> float:
    if name in AGES:
        if not isinstance(value, str):
            raise UsageError(f'{file}: {where} is {value!r}; wanted an age in quotes: "90m", "6h", "2d"')
        try:
            return parse_duration(value) / timedelta(seconds=1)
        except UsageError as error:
            raise UsageError(f"{file}: {where}: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"{file}: {where} is {value!r}; wanted a share from 0 to 1")
    return float(value)


def _table(file: Path, where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{file}: {where} is {value!r}; wanted a table [{where}]")
    return value


def _refuse_unknown(file: Path, where: str, found: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(found.keys() - known)
    if unknown:
        raise UsageError(f"{file}: unknown {where}{unknown[0]}; known there: {', '.join(sorted(known))}")
