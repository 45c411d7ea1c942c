"""The fast reader for ranking services: features of 500 candidates as matrices, without Feast and without a registry.

    reader = OnlineReader("redis://localhost:6379", project="vitrine")
    block = reader.fetch("product_embedding", candidates)
    block.values["fused_vector"]                     # float32 [500, width]
    block.status == Status.PRESENT                   # [500]

What it needs to know of views and services lies in the online store itself (feature_repo/online/catalog.py). A process
that reads again and again does well to begin with `feature_repo.memory.keep_freed()`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from feature_repo.arrow import timestamps
from feature_repo.errors import NotFoundError, UnavailableError, VitrineError
from feature_repo.online.catalog import ProjectCatalog, ServiceView
from feature_repo.online.decode import Status
from feature_repo.online.feature_batch import FeatureBatch, ViewRows
from feature_repo.online.open_store import open_store
from feature_repo.online.request import Ids, PlannedRequest, RequestPlan
from feature_repo.online.table import OnlineTable, RequestPipeline, ViewRequest

if TYPE_CHECKING:
    import torch

__all__ = ["FeatureBatch", "Link", "NoServicesError", "OnlineReader", "Status", "UnknownFeaturesError"]

PLANS_KEPT = 256


class UnknownFeaturesError(NotFoundError):
    """The store has no service, view or feature of that name."""


class NoServicesError(UnavailableError):
    """The store has no feature services: nothing was applied to it yet, or it was emptied."""


@dataclass(frozen=True)
class Link:
    """Entities that a row of the first ones names, and what is asked of them."""

    view: str
    """Of the first ones: its rows are read first of all."""
    ids: Callable[[ViewRows], Ids]
    """The entities, from those rows."""
    name: str
    """A feature service or view."""


class OnlineReader:
    """Reads the online features of one project. Threads and event loops may share a reader.

    Args:
        url: lmdb:///folder, or of Redis as feature_repo/online/redis_connection.py has it.
        project: the project's name in Feast.
        refresh: seconds after which changed views, TTLs and services are noticed at the latest; a new layout of rows is
            noticed at once.

    Raises:
        VitrineError: the URL is of no store, or the store cannot be opened.
    """

    def __init__(self, url: str, project: str, *, refresh: float = 60.0) -> None:
        self._begin(OnlineTable(open_store(url), project), refresh)

    @classmethod
    def from_table(cls, table: OnlineTable, *, refresh: float = 60.0) -> "OnlineReader":
        """A reader of a project's rows in a store that is open already; it closes the store in the end."""
        reader = cls.__new__(cls)
        reader._begin(table, refresh)
        return reader

    def _begin(self, table: OnlineTable, refresh: float) -> None:
        self._table = table
        self._refresh = refresh
        self._looked = time.monotonic()
        self._plans: dict[tuple[Any, ...], RequestPlan] = {}

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
    ) -> FeatureBatch:
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
        with self._table.conversation(_microseconds(now), keep_stale=keep_stale) as talk:
            for part in question.plan.order:
                talk.ask(question.request(part))
            found = {part: talk.hear() for part in question.plan.order}
        return question.answer([found[part] for part in sorted(found)])

    def fetch_linked(
        self, view_or_service: str, ids: Ids, link: Link, *, keep_stale: bool = False, now: datetime | None = None
    ) -> tuple[FeatureBatch, FeatureBatch | None]:
        """The features of some entities, and of others that a row of theirs names, in one conversation with the store.

        Args:
            view_or_service, ids, keep_stale, now: as of `fetch`; the link's view is among those asked for.
            link: which others; if there are none, the second block is None.

        Returns:
            Blocks with full feature names.

        Raises:
            As `fetch`.
        """
        question = self._question(view_or_service, ids, None, True, None)
        with self._table.conversation(_microseconds(now), keep_stale=keep_stale) as talk:
            return _fetch_two_hops(talk, question, link, self._plan(link.name, None, True))

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
    ) -> FeatureBatch:
        """`fetch`, without blocking the event loop while the store is asked."""
        if self._table.catalog.is_loaded() and not self._is_due():
            question = self._question(view_or_service, ids, features, full_feature_names, out)
        else:
            question = await asyncio.to_thread(self._question, view_or_service, ids, features, full_feature_names, out)
        requests = question.requests()
        found = await self._table.store.read_async([request.keys for request in requests])
        return question.answer(self._table.unpack(requests, found, _microseconds(now), keep_stale))

    def services(self) -> tuple[str, ...]:
        """The names of the feature services, sorted."""
        self._look_again()
        return tuple(sorted(self._table.catalog.load().services))

    def join_keys(self, view_or_service: str) -> dict[str, tuple[str, ...]]:
        """Of each view that is asked, by its name in the service: the join keys, as the service calls them.

        Raises:
            UnknownFeatures: there is no such service or view.
            VitrineError: the store does not answer.
        """
        self._look_again()
        return {part.name: part.join_keys for part in self._plan(view_or_service, None, True).parts}

    def on_demand(self, view_or_service: str) -> tuple[str, ...]:
        """The on-demand views of a service, which the store does not hold.

        Raises:
            As `join_keys`.
        """
        self._look_again()
        return self._plan(view_or_service, None, True).on_demand

    def ping(self) -> None:
        """Ask the store for what it says of itself.

        Raises:
            VitrineError: it does not answer, or knows nothing of the project.
        """
        if not self._table.catalog.reload().views:
            raise VitrineError(f"the online store has no views of project `{self._table.project}`: run `feast apply`")

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

    def _look_again(self) -> None:
        if self._is_due():
            self._looked = time.monotonic()
            self._table.catalog.reload()

    def _question(
        self,
        name: str,
        ids: Ids,
        features: Sequence[str] | None,
        full_feature_names: bool,
        out: "Mapping[str, NDArray[Any] | torch.Tensor] | None",
    ) -> PlannedRequest:
        self._look_again()
        return self._plan(name, features, full_feature_names).ask(ids, out or {})

    def _plan(self, name: str, features: Sequence[str] | None, full_feature_names: bool) -> RequestPlan:
        """What these features ask for, worked out anew when the store says something else than before."""
        asked = (name, None if features is None else tuple(features), full_feature_names)
        plan, record = self._plans.get(asked), self._table.catalog.load()
        if plan is None or plan.record is not record:
            parts, on_demand = self._parts(name, features)
            plan = RequestPlan.of(self._table, record, name, parts, on_demand, full_feature_names)
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            self._plans[asked] = plan
        return plan

    def _parts(self, name: str, features: Sequence[str] | None) -> tuple[tuple[ServiceView, ...], tuple[str, ...]]:
        record = self._table.catalog.load()
        if name not in record.services and name not in record.views:
            record = self._table.catalog.reload()
        service = record.services.get(name)
        if service is not None and features is None:
            return service.parts, service.on_demand
        if name not in record.views:
            kind = UnknownFeaturesError if record.services else NoServicesError
            raise kind(_unknown(name, self._table.project, record))
        known = tuple(field.name for field in record.views[name].layout.fields)
        missing = [one for one in features or () if one not in known]
        if missing:
            raise UnknownFeaturesError(f"view `{name}` has no feature {', '.join(missing)}; it has {', '.join(known)}")
        return (ServiceView(name, name, known if features is None else tuple(features)),), ()


def _fetch_two_hops(
    talk: RequestPipeline, question: PlannedRequest, link: Link, plan: RequestPlan
) -> tuple[FeatureBatch, FeatureBatch | None]:
    """What a question asks, and what `plan` asks of the entities that are named; None if there are none.

    Args:
        question: of the first entities; the link's view is among its own.
        plan: of what the link asks.
    """
    parts = question.plan.parts
    also = {part.view.name: number for number, part in enumerate(plan.parts)}
    naming = next(number for number, part in enumerate(parts) if part.name == link.view)
    early = [n for n in question.plan.order if n == naming or parts[n].view.name not in also]
    early.sort(key=lambda n: n != naming)
    for number in early:
        talk.ask(question.request(number))
    found = {naming: talk.hear()}

    named = link.ids(question.view(naming, found[naming]))
    others = plan.ask(named, {}) if len(named) else None
    mine = {n: question.request(n) for n in question.plan.order if n not in early}
    theirs = dict(enumerate(others.requests())) if others else {}
    shared = {n: also[parts[n].view.name] for n in mine} if others else {}
    apart = [n for n in theirs if n not in shared.values()]
    for number, request in mine.items():
        talk.ask(_joined(request, theirs[shared[number]]) if shared else request)
    for number in apart:
        talk.ask(theirs[number])

    found |= {number: talk.hear() for number in early[1:]}
    of_others = {}
    for number, request in mine.items():
        rows, count = talk.hear(), len(request.keys)
        found[number] = rows.slice_rows(request.fields, slice(count))
        if shared:
            other = shared[number]
            of_others[other] = rows.slice_rows(theirs[other].fields, slice(count, None))
    of_others |= {number: talk.hear() for number in apart}
    second = others.answer([of_others[number] for number in sorted(of_others)]) if others else None
    return question.answer([found[number] for number in sorted(found)]), second


def _joined(first: ViewRequest, second: ViewRequest) -> ViewRequest:
    """What two requests ask of one view, as one."""
    fields = dict.fromkeys((*first.fields, *second.fields))
    return replace(first, fields=tuple(fields), keys=[*first.keys, *second.keys])


def _unknown(name: str, project: str, record: ProjectCatalog) -> str:
    views, services = ", ".join(sorted(record.views)) or "none", ", ".join(sorted(record.services)) or "none"
    return (
        f"the online store has neither a service nor a view `{name}` in project `{project}`; services: {services}; "
        f"views: {views}. Run `feast apply`, then materialize"
    )


def _microseconds(now: datetime | None) -> int:
    return time.time_ns() // 1_000 if now is None else timestamps.datetime_to_ticks(now, "us")
