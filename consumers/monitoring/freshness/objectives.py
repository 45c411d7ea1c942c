"""Freshness objectives, read from a TOML file. docs/objectives.toml is an example with comments.

    [defaults]                                  for every view
    [views.product_tags]                        for one view, instead of the defaults
    [views.product_embedding.slices."new products"]     for one slice of it
    [quarantine]                                rows, by step of the producer: embeddings = 100

Ages are written 90m, 6h, 2d. Shares are numbers from 0 to 1. Bounds are inclusive: a value equal to its bound passes.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from consumers.monitoring.freshness.freshness import OPTIONAL_VIEWS, REQUIRED_VIEWS
from consumers.monitoring.freshness.lags import VERSION
from consumers.monitoring.freshness.slices import ALL, CATEGORY, NEW
from feature_repo.durations import parse_duration
from feature_repo.errors import InvalidInputError, UsageError

AGES = {
    "max_age": "age of the newest event",
    "last_run": "time since the producer's last successful run",
    "materialized": "time since the last completed materialization",
    "watermark": "age of the event time up to which all rows are online",
    "lag_p50": "event-to-online lag, p50",
    "lag_p95": "event-to-online lag, p95",
    "lag_p99": "event-to-online lag, p99",
    "age_p95": "age of the products' newest rows, p95",
    "served_age_p50": "age of served features, p50",
    "served_age_p95": "age of served features, p95",
    "served_age_p99": "age of served features, p99",
}
"""Measures with an upper bound in seconds, and how messages name them."""
SHARES = {
    "coverage": "active products covered",
    "online": "active products online",
    "served_coverage": "impressions covered",
}
"""Measures with a lower bound, a share, and how messages name them."""
VIEW_MEASURES = ("max_age", "last_run", "materialized", "watermark")
"""Measures of a whole view. The others also exist for each slice."""
STEPS = ("catalogue", "embeddings", "tags", "captions", "interests", "neighbours", "stream", "lift")
"""Steps that write refused rows to the quarantine."""
Bounds = Mapping[str, float]


@dataclass(frozen=True)
class Objectives:
    """The objectives of one deployment. Without arguments there are none.

    Bounds are by measure: upper bounds in seconds for those in AGES, lower bounds from 0 to 1 for those in SHARES.
    """

    defaults: Bounds = field(default_factory=dict)
    """Bounds of every view that sets no other bound for the measure."""
    views: Mapping[str, Bounds] = field(default_factory=dict)
    """The views' own bounds, by view."""
    slices: Mapping[tuple[str, str], Bounds] = field(default_factory=dict)
    """Bounds of groups of products, by view and slice name (such as "new products")."""
    quarantine: Mapping[str, int] = field(default_factory=dict)
    """Allowed number of refused rows in the window, inclusive, by step. Rows that were repaired and kept do not count.
    A step that is missing may refuse any number."""

    def view_bounds(self, view: str) -> Bounds:
        """Return the bounds of a view by measure: its own, and the defaults for the measures that it does not set."""
        return {**self.defaults, **self.views.get(view, {})}

    def slice_bounds(self, view: str, slice_name: str) -> Bounds:
        """Return the bounds of a slice by measure; empty if it has none.

        The bounds of its view and the defaults are not among them.
        """
        return self.slices.get((view, slice_name), {})


def load_objectives(file: Path) -> Objectives:
    """Read objectives from a TOML file. A section that is missing sets no bounds.

    Args:
        file: the file; the module's docstring describes it.

    Raises:
        InvalidInputError: the file cannot be read.
        UsageError: the file is not TOML in UTF-8, or has an unknown name or an invalid value.
    """
    try:
        raw = tomllib.loads(file.read_text())
    except OSError as error:
        raise InvalidInputError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not valid TOML: {error}") from error
    _check_names(file, "", raw, {"defaults", "views", "quarantine"})
    views: dict[str, Bounds] = {}
    slices: dict[tuple[str, str], Bounds] = {}
    view_tables = _read_table(file, "views", raw.get("views", {}))
    _check_names(file, "views.", view_tables, {*REQUIRED_VIEWS, *OPTIONAL_VIEWS})
    for view, value in view_tables.items():
        path = f"views.{view}"
        view_table = dict(_read_table(file, path, value))
        for name, bounds in _read_table(file, f"{path}.slices", view_table.pop("slices", {})).items():
            if name == ALL:
                raise UsageError(f'{file}: {path}.slices."{ALL}" is the whole view; set its bounds in [{path}]')
            if name != NEW and not name.startswith((CATEGORY, f"{VERSION} ")):
                raise UsageError(
                    f'{file}: unknown {path}.slices."{name}"; expected "{NEW}", "{CATEGORY}..." or "{VERSION} ..."'
                )
            slices[view, name] = _read_bounds(file, f'{path}.slices."{name}"', bounds, is_slice=True)
        views[view] = _read_bounds(file, path, view_table)
    quarantine = _read_table(file, "quarantine", raw.get("quarantine", {}))
    _check_names(file, "quarantine.", quarantine, set(STEPS))
    for step, rows in quarantine.items():
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
            raise UsageError(f"{file}: quarantine.{step} is {rows!r}; expected a number of rows")
    return Objectives(_read_bounds(file, "defaults", raw.get("defaults", {})), views, slices, quarantine)


def _read_bounds(file: Path, path: str, value: Any, *, is_slice: bool = False) -> Bounds:
    names = {name for name in (*AGES, *SHARES) if not (is_slice and name in VIEW_MEASURES)}
    _check_names(file, f"{path}.", _read_table(file, path, value), names)
    return {name: _read_bound(file, f"{path}.{name}", name, bound) for name, bound in value.items()}


def _read_bound(file: Path, path: str, name: str, value: Any) -> float:
    if name in AGES:
        if not isinstance(value, str):
            raise UsageError(f'{file}: {path} is {value!r}; expected an age in quotes: "90m", "6h", "2d"')
        try:
            return parse_duration(value) / timedelta(seconds=1)
        except UsageError as error:
            raise UsageError(f"{file}: {path}: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"{file}: {path} is {value!r}; expected a share from 0 to 1")
    return float(value)


def _read_table(file: Path, path: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{file}: {path} is {value!r}; expected a table [{path}]")
    return value


def _check_names(file: Path, path: str, table: Mapping[str, Any], allowed: set[str]) -> None:
    unknown = sorted(table.keys() - allowed)
    if unknown:
        raise UsageError(f"{file}: unknown {path}{unknown[0]}; expected one of {', '.join(sorted(allowed))}")
