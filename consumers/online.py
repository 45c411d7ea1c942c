"""The fast reader for ranking services: features of 500 candidates as matrices, without Feast and without a registry.

    reader = OnlineReader("redis://localhost:6379", project="vitrine")
    block = reader.fetch("product_embedding", candidates)
    block.values["fused_vector"]                     # float32 [500, width]
    block.status == Status.PRESENT                   # [500]

What it needs to know of views and services lies in the online store itself (feature_repo/tables/record.py).
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from consumers.block import Block
from feature_repo.errors import VitrineError
from feature_repo.tables import columns, entity_keys, times
from feature_repo.tables.decode import Status
from feature_repo.tables.layout import Field
from feature_repo.tables.online_table import OnlineTable, Request
from feature_repo.tables.opening import open_store
from feature_repo.tables.record import Record, ServicePart, View
from feature_repo.tables.view_rows import ViewRows, distinct

if TYPE_CHECKING:
    import torch

__all__ = ["Block", "OnlineReader", "Status"]

PLANS_KEPT = 256

Ids = Sequence[Any] | Mapping[str, Any]


class OnlineReader:
    """Reads the online features of one project. Threads and event loops may share a reader.

    Args:
        url: lmdb:///folder, or of Redis as feature_repo/tables/redis_address.py has it.
        project: the project's name in Feast.
        refresh: seconds after which changed views, TTLs and services are noticed at the latest; a new layout of rows is
            noticed at once.

    Raises:
        VitrineError: the URL is of no store, or the store cannot be opened.
    """

    def __init__(self, url: str, project: str, *, refresh: float = 60.0) -> None:
        self._table = OnlineTable(open_store(url), project)
        self._refresh = refresh
        self._looked = time.monotonic()
        self._plans: dict[tuple[Any, ...], _Plan] = {}

    def fetch(
        self,
        view_or_service: str,
        ids: Ids,
        *,
        features: Sequence[str] | None = None,
        full_feature_names: bool = False,
        keep_stale: bool = False,
        out: "Mapping[str, NDArray[Any] | torch.Tensor] | None" = None,
        now: datetime | None = None,
    ) -> Block:
        """The features of some entities.

        Args:
            view_or_service: name of a feature service, else of a feature view.
            ids: of each row the entity's id; with several join keys a mapping from join key to ids, or to one id that
                holds for all rows.
            features: which of a view's; all, if not said.
            full_feature_names: whether features are called view__feature, as in Feast.
            keep_stale: give the values of rows older than their view's TTL, which are missing otherwise.
            out: arrays or CPU tensors that take the values of some float features: [n], or [n, width].
            now: the time for which rows are stale or not; the clock's, if not said.

        Raises:
            VitrineError: there is no such view, service, feature or join key; two features are called alike; an array
                of `out` does not fit; the store does not answer.
        """
        question = self._question(view_or_service, ids, features, full_feature_names, out)
        return question.answer(self._table.read(question.requests, _microseconds(now), keep_stale=keep_stale))

    async def fetch_async(
        self,
        view_or_service: str,
        ids: Ids,
        *,
        features: Sequence[str] | None = None,
        full_feature_names: bool = False,
        keep_stale: bool = False,
        out: "Mapping[str, NDArray[Any] | torch.Tensor] | None" = None,
        now: datetime | None = None,
    ) -> Block:
        """`fetch`, without blocking the event loop while the store is asked."""
        if self._table.is_known() and not self._is_due():
            question = self._question(view_or_service, ids, features, full_feature_names, out)
        else:
            question = await asyncio.to_thread(self._question, view_or_service, ids, features, full_feature_names, out)
        found = await self._table.store.read_async([request.keys for request in question.requests])
        return question.answer(self._table.unpack(question.requests, found, _microseconds(now), keep_stale))

    def close(self) -> None:
        """Close the connections."""
        self._table.store.close()

    def __enter__(self) -> "OnlineReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_due(self) -> bool:
        return time.monotonic() - self._looked > self._refresh

    def _question(
        self,
        name: str,
        ids: Ids,
        features: Sequence[str] | None,
        full_feature_names: bool,
        out: "Mapping[str, NDArray[Any] | torch.Tensor] | None",
    ) -> "_Question":
        if self._is_due():
            self._looked = time.monotonic()
            self._table.reload()
        return self._plan(name, features, full_feature_names).ask(ids, out or {})

    def _plan(self, name: str, features: Sequence[str] | None, full_feature_names: bool) -> "_Plan":
        """What these features ask for, worked out anew when the store says something else than before."""
        asked = (name, None if features is None else tuple(features), full_feature_names)
        plan = self._plans.get(asked)
        if plan is None or plan.record is not self._table.record():
            parts, on_demand = self._parts(name, features)
            plan = _Plan.of(self._table, name, parts, on_demand, full_feature_names)
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            self._plans[asked] = plan
        return plan

    def _parts(self, name: str, features: Sequence[str] | None) -> tuple[tuple[ServicePart, ...], tuple[str, ...]]:
        record = self._table.record()
        if name not in record.services and name not in record.views:
            record = self._table.reload()
        service = record.services.get(name)
        if service is not None and features is None:
            return service.parts, service.on_demand
        if name not in record.views:
            raise VitrineError(_unknown(name, self._table.project, record))
        known = tuple(field.name for field in record.views[name].layout.fields)
        missing = [one for one in features or () if one not in known]
        if missing:
            raise VitrineError(f"view `{name}` has no feature {', '.join(missing)}; it has {', '.join(known)}")
        return (ServicePart(name, name, known if features is None else tuple(features)),), ()


@dataclass(frozen=True)
class _Part:
    """What is asked of one view."""

    name: str
    """What the view is called in the service."""
    view: View
    fields: tuple[Field, ...]
    names: Mapping[str, str]
    """The features, by their names in the block."""
    prefix: bytes
    join_keys: tuple[str, ...]
    """What the view's join keys are called in the service, in the order of the view's own names."""

    @staticmethod
    def of(table: OnlineTable, name: str, part: ServicePart, full_feature_names: bool) -> "_Part":
        view, called = table.view(part.view), dict(part.join_keys)
        lacking = [feature for feature in part.features if feature not in view.layout.by_name]
        if lacking:
            raise VitrineError(f"`{name}`: view `{view.name}` no longer has {', '.join(lacking)}; apply it anew")
        return _Part(
            name=part.name,
            view=view,
            fields=tuple(view.layout.by_name[feature] for feature in part.features),
            names={f"{part.name}__{one}" if full_feature_names else one: one for one in part.features},
            prefix=entity_keys.prefix(table.project, view.name),
            join_keys=tuple(called.get(key, key) for key, _ in view.join_keys),
        )


@dataclass(frozen=True)
class _Plan:
    """What is asked of which views, whichever the entities."""

    record: Record
    """What the store said when this was worked out."""
    name: str
    parts: tuple[_Part, ...]
    on_demand: tuple[str, ...]
    join_keys: tuple[str, ...]
    features: frozenset[str]

    @staticmethod
    def of(
        table: OnlineTable,
        name: str,
        service_parts: Sequence[ServicePart],
        on_demand: tuple[str, ...],
        full_feature_names: bool,
    ) -> "_Plan":
        parts = tuple(_Part.of(table, name, part, full_feature_names) for part in service_parts)
        shown = [feature for part in parts for feature in part.names]
        alike = {feature for feature in shown if shown.count(feature) > 1}
        if alike:
            raise VitrineError(
                f"service `{name}` has several features called {', '.join(sorted(alike))}; "
                f"fetch it with full_feature_names=True"
            )
        join_keys = {key for part in parts for key in part.join_keys}
        return _Plan(table.record(), name, parts, on_demand, tuple(sorted(join_keys)), frozenset(shown))

    def ask(self, ids: Ids, out: "Mapping[str, NDArray[Any] | torch.Tensor]") -> "_Question":
        """The question for some entities."""
        arrays = {feature: np.asarray(target) for feature, target in out.items()}
        if not arrays.keys() <= self.features:
            unknown = ", ".join(sorted(arrays.keys() - self.features))
            raise VitrineError(f"out: `{self.name}` has no feature {unknown}")
        given, count = _by_join_key(self.name, self.join_keys, ids)
        requests, places = [], []
        for part in self.parts:
            values = [given[key] for key in part.join_keys] or [[""] * count]
            keys, place = distinct(entity_keys.keys(part.prefix, values))
            targets = {own: arrays[shown] for shown, own in part.names.items() if shown in arrays and place is None}
            requests.append(Request(part.view, part.fields, keys, targets))
            places.append(place)
        return _Question(self, count, requests, places, arrays)


@dataclass(frozen=True)
class _Question:
    """What is asked for which entities."""

    plan: _Plan
    count: int
    requests: list[Request]
    places: list[NDArray[np.int64] | None]
    out: Mapping[str, NDArray[Any]]

    def answer(self, found: Sequence[Any]) -> Block:
        views = {
            part.name: ViewRows(rows, place, part.names)
            for part, rows, place in zip(self.plan.parts, found, self.places, strict=True)
        }
        for view in views.values() if self.out else ():
            for shown in view.names.keys() & self.out.keys() if view.place is not None else ():
                column = view.column(shown)
                values = view.spread(np.asarray(column.values))
                columns.into(replace(column, values=values, valid=None), self.out[shown])
        return Block(self.count, views, self.plan.on_demand)


def _by_join_key(name: str, wanted: Sequence[str], ids: Ids) -> tuple[dict[str, Sequence[Any]], int]:
    """The ids of each join key that is asked for, and the number of rows."""
    if not isinstance(ids, Mapping):
        if len(wanted) > 1:
            raise VitrineError(f"`{name}` asks for {', '.join(wanted)}: give the ids as a mapping from join key to ids")
        return {key: _listed(ids) for key in wanted}, len(ids)
    missing = [key for key in wanted if key not in ids]
    if missing:
        raise VitrineError(f"`{name}` asks for {', '.join(wanted)}; there are no ids for {', '.join(missing)}")
    counts = {len(one) for one in ids.values() if not _is_one(one)}
    if len(counts) > 1:
        raise VitrineError(f"`{name}`: the join keys' ids are of different numbers: {sorted(counts)}")
    count = counts.pop() if counts else 1
    return {key: [ids[key]] * count if _is_one(ids[key]) else _listed(ids[key]) for key in wanted}, count


def _is_one(ids: Any) -> bool:
    """Whether this is one id, not a sequence of them."""
    return isinstance(ids, str | bytes) or not hasattr(ids, "__len__")


def _listed(ids: Any) -> list[Any]:
    """Ids as Python values, whether they come as a list, a NumPy or an Arrow array."""
    if hasattr(ids, "to_pylist"):
        return ids.to_pylist()
    return ids.tolist() if hasattr(ids, "tolist") else list(ids)


def _unknown(name: str, project: str, record: Record) -> str:
    views, services = ", ".join(sorted(record.views)) or "none", ", ".join(sorted(record.services)) or "none"
    return (
        f"the online store has neither a service nor a view `{name}` in project `{project}`; services: {services}; "
        f"views: {views}. Run `feast apply`, then materialize"
    )


def _microseconds(now: datetime | None) -> int:
    return time.time_ns() // 1_000 if now is None else times.tick(now, "us")
