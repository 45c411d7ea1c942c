"""What each group of features costs: bytes a candidate, milliseconds a request, seconds offline.

All three are measured, or said not to be: bytes and milliseconds on the packed rows in the online store of every view
that the group reads (views are fetched as a whole), seconds as the steps' own timings say.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.online.catalog import ServiceView
from feature_repo.online.open_store import open_configured_table
from feature_repo.online.request import RequestPlan
from feature_repo.online.table import OnlineTable

VIEWS: Mapping[str, tuple[str, ...]] = {
    "tags": (schema.TAGS_TABLE,),
    "affinity": (schema.EMBEDDING_TABLE, schema.TAGS_TABLE),
    "vectors": (schema.EMBEDDING_TABLE,),
    "codes": (schema.CODES_TABLE,),
    "neighbours": (schema.NEIGHBOURS_TABLE,),
    "missing": (schema.EMBEDDING_TABLE, schema.TAGS_TABLE),
}
"""The views that a request fetches of each candidate for a group; the user's own row is fetched once a request."""
STEPS: Mapping[str, tuple[str, ...]] = {
    "tags": ("produce embeddings", "produce tags"),
    "affinity": ("produce embeddings", "produce tags", "produce interests"),
    "vectors": ("produce embeddings",),
    "codes": ("produce embeddings", "produce codes"),
    "neighbours": ("produce embeddings", "produce neighbours"),
    "missing": ("produce embeddings", "produce tags"),
}
"""The steps that must have run; those that groups share are counted for each of them."""
CANDIDATES = 500
REQUESTS = 15


@dataclass(frozen=True)
class GroupCost:
    """Of one group; None where it was not measured."""

    group: str
    bytes_per_candidate: int | None
    fetch_ms: float | None
    """Median of REQUESTS requests for CANDIDATES candidates each, from the online store."""
    build_seconds: float | None

    def as_json(self) -> dict[str, object]:
        """Null where it was not measured."""
        return {
            "group": self.group,
            "bytes_per_candidate": self.bytes_per_candidate,
            f"fetch_{CANDIDATES}_ms": self.fetch_ms,
            "build_seconds": self.build_seconds,
        }


def unknown(group: str) -> GroupCost:
    """Of a group of which nothing was measured."""
    return GroupCost(group, None, None, None)


@dataclass(frozen=True)
class FetchCost:
    """What fetching some views for CANDIDATES candidates takes."""

    bytes_per_candidate: int
    """Mean over those that have a row."""
    milliseconds: float


def measure_fetch_costs(settings: Settings, products: Sequence[str]) -> dict[tuple[str, ...], FetchCost]:
    """Fetch CANDIDATES of the products from the online store for each set of views in VIEWS that it holds.

    Empty where the deployment has no online store, or nothing was materialized.
    """
    table = open_configured_table(settings)
    if table is None:
        return {}
    try:
        asked = [products[i % len(products)] for i in range(CANDIDATES)] if products else []
        held = {view for view in table.catalog.load().views if asked}
        found = {views: _fetch(table, views, asked) for views in dict.fromkeys(VIEWS.values()) if held >= set(views)}
        return {views: each for views, each in found.items() if each is not None}
    finally:
        table.store.close()


def _fetch(table: OnlineTable, views: tuple[str, ...], asked: Sequence[str]) -> FetchCost | None:
    record = table.catalog.load()
    fields = {view: tuple(field.name for field in record.views[view].layout.fields) for view in views}
    parts = [ServiceView(view, view, fields[view]) for view in views]
    question = RequestPlan.build(table, record, "+".join(views), parts, (), True).bind(asked, {})
    requests = question.view_requests()
    rows = table.store.read([request.keys for request in requests])
    sizes = [sum(len(row) for row in of_view if row is not None) for of_view in rows]
    present = [sum(row is not None for row in of_view) for of_view in rows]
    if not all(present):
        return None
    took = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        question.build_batch(table.read(requests, time.time_ns() // 1_000, keep_stale=True))
        took.append(time.perf_counter() - began)
    return FetchCost(round(sum(np.divide(sizes, present))), 1000 * float(np.median(took)))


def combine_costs(
    groups: Sequence[str], fetched: Mapping[tuple[str, ...], FetchCost], timings: Sequence[tuple[str, float]]
) -> list[GroupCost]:
    """Put together what is known of each group.

    Args:
        groups: their names.
        fetched: as `fetch_costs` gives it.
        timings: (step, seconds) of the steps that were timed.
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
