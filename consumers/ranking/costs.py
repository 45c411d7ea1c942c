"""The cost of each group of features: bytes per candidate, milliseconds per request, seconds to build.

Bytes and milliseconds are measured on the online store, for all views that the group needs; a view is always fetched
whole. Seconds come from the timings of the build steps. What was not measured is None.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.online.catalog import ServiceView
from feature_repo.online.open_store import open_configured_table
from feature_repo.online.request_plan import RequestPlan
from feature_repo.online.table import OnlineTable

VIEWS: Mapping[str, tuple[str, ...]] = {
    "tags": (schema.TAGS_TABLE,),
    "affinity": (schema.EMBEDDING_TABLE, schema.TAGS_TABLE),
    "vectors": (schema.EMBEDDING_TABLE,),
    "codes": (schema.CODES_TABLE,),
    "neighbours": (schema.NEIGHBOURS_TABLE,),
    "missing": (schema.EMBEDDING_TABLE, schema.TAGS_TABLE),
}
"""The views that a request fetches for each candidate, by group. The user's own row is fetched once per request."""
STEPS: Mapping[str, tuple[str, ...]] = {
    "tags": ("produce embeddings", "produce tags"),
    "affinity": ("produce embeddings", "produce tags", "produce interests"),
    "vectors": ("produce embeddings",),
    "codes": ("produce embeddings", "produce codes"),
    "neighbours": ("produce embeddings", "produce neighbours"),
    "missing": ("produce embeddings", "produce tags"),
}
"""The build steps that each group needs. A step that several groups need counts for each of them."""
CANDIDATES = 500
"""Products per request."""
REQUESTS = 15
"""Requests whose median is reported."""


@dataclass(frozen=True)
class GroupCost:
    """The cost of one group of features; None where it was not measured."""

    group: str
    """Name of the group."""
    bytes_per_candidate: int | None = None
    """Stored bytes of one product in all views that the group needs; a view counts whole. In each view, the mean over
    the products that have a row."""
    fetch_ms: float | None = None
    """Milliseconds of one request for CANDIDATES products; median of REQUESTS requests."""
    build_seconds: float | None = None
    """Sum of the seconds of all build steps that the group needs (STEPS)."""

    def as_json(self) -> dict[str, object]:
        """Return the cost as `consume lift --json` prints it.

        Returns:
            `group`, `bytes_per_candidate`, `fetch_500_ms` (500 is CANDIDATES) and `build_seconds`. All keys are always
            there; a value is None where it was not measured.
        """
        return {
            "group": self.group,
            "bytes_per_candidate": self.bytes_per_candidate,
            f"fetch_{CANDIDATES}_ms": self.fetch_ms,
            "build_seconds": self.build_seconds,
        }


@dataclass(frozen=True)
class FetchCost:
    """The cost of fetching a set of views for CANDIDATES products from the online store."""

    bytes_per_candidate: int
    """Stored bytes of one product in all these views. In each view, the mean over the products that have a row; the sum
    is rounded to whole bytes."""
    milliseconds: float
    """Time of one request for CANDIDATES products; median of REQUESTS requests."""


def measure_fetch_costs(
    settings: Settings, ids: Sequence[str], view_sets: Iterable[tuple[str, ...]] = tuple(VIEWS.values())
) -> dict[tuple[str, ...], FetchCost]:
    """Measure the fetch of CANDIDATES entities from the online store for each of some sets of views.

    Args:
        settings: the deployment.
        ids: products to fetch, or ids of another entity that all the views have. Fewer than CANDIDATES are repeated,
            more are cut; none gives an empty result.
        view_sets: names of views that are fetched together. The default has the views of each group of features.

    Returns:
        Set of views to its cost. A set is left out if one of its views is not in the online store, or has no row for
        any of the entities. Empty without an online store.

    Raises:
        UnavailableError: the online store does not answer.
    """
    table = open_configured_table(settings) if ids else None
    if table is None:
        return {}
    try:
        candidates = [ids[i % len(ids)] for i in range(CANDIDATES)]
        stored = set(table.catalog.load().list_views())
        costs = {
            views: _measure_fetch(table, views, candidates)
            for views in dict.fromkeys(view_sets)
            if stored >= set(views)
        }
        return {views: cost for views, cost in costs.items() if cost is not None}
    finally:
        table.store.close()


def _measure_fetch(table: OnlineTable, views: tuple[str, ...], candidates: Sequence[str]) -> FetchCost | None:
    """The cost of one set of views; None if a view has no row for any candidate."""
    catalog = table.catalog.load()
    stored = catalog.list_views()
    fields = {view: tuple(field.name for field in stored[view].layout.fields) for view in views}
    parts = [ServiceView(view, view, fields[view]) for view in views]
    feature_request = RequestPlan.build(table, catalog, "+".join(views), parts, (), True).bind(candidates, {})
    reads = feature_request.view_requests()
    rows_by_view = table.store.read([read.keys for read in reads])
    sizes = [sum(len(row) for row in rows if row is not None) for rows in rows_by_view]
    present = [sum(row is not None for row in rows) for rows in rows_by_view]
    if not all(present):
        return None
    seconds = []
    for _ in range(REQUESTS):
        start = time.perf_counter()
        feature_request.build_batch(table.read(reads, time.time_ns() // 1_000, keep_stale=True))
        seconds.append(time.perf_counter() - start)
    return FetchCost(round(sum(np.divide(sizes, present))), 1000 * float(np.median(seconds)))


def combine_costs(
    groups: Sequence[str], fetched: Mapping[tuple[str, ...], FetchCost], timings: Sequence[tuple[str, float]]
) -> list[GroupCost]:
    """Combine fetch costs and timings by group, in the order of `groups`.

    Args:
        groups: names of the groups; all costs of a name that is not in VIEWS are None.
        fetched: the result of `measure_fetch_costs`. A set of views that is not there gives None.
        timings: (step, seconds) of the timed steps; of a repeated step the last counts. Unless all steps of a group are
            timed, its `build_seconds` is None.

    Returns:
        One cost for each of `groups`.
    """
    seconds = dict(timings)
    result = []
    for group in groups:
        steps, online = STEPS.get(group, ()), fetched.get(VIEWS.get(group, ()))
        timed = bool(steps) and all(step in seconds for step in steps)
        result.append(
            GroupCost(
                group,
                online.bytes_per_candidate if online else None,
                online.milliseconds if online else None,
                sum(seconds[step] for step in steps) if timed else None,
            )
        )
    return result
