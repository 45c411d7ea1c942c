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
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from consumers.online.linked import Link, fetch_linked
from feature_repo.arrow import timestamps
from feature_repo.errors import VitrineError
from feature_repo.online.catalog import Record, ServicePart
from feature_repo.online.decode import Status
from feature_repo.online.feature_batch import Block
from feature_repo.online.open_store import open_store
from feature_repo.online.request import Ids, Plan, Question
from feature_repo.online.table import OnlineTable

if TYPE_CHECKING:
    import torch

__all__ = ["Block", "Link", "NoServices", "OnlineReader", "Status", "UnknownFeatures"]

PLANS_KEPT = 256


class UnknownFeatures(VitrineError):
    """The store has no service, view or feature of that name."""


class NoServices(UnknownFeatures):
    """Nor has it any service: nothing was applied to it yet, or it was emptied."""


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
    def of_table(cls, table: OnlineTable, *, refresh: float = 60.0) -> "OnlineReader":
        """A reader of a project's rows in a store that is open already; it closes the store in the end."""
        reader = cls.__new__(cls)
        reader._begin(table, refresh)
        return reader

    def _begin(self, table: OnlineTable, refresh: float) -> None:
        self._table = table
        self._refresh = refresh
        self._looked = time.monotonic()
        self._plans: dict[tuple[Any, ...], Plan] = {}

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
        with self._table.conversation(_microseconds(now), keep_stale=keep_stale) as talk:
            for part in question.plan.order:
                talk.ask(question.request(part))
            found = {part: talk.hear() for part in question.plan.order}
        return question.answer([found[part] for part in sorted(found)])

    def fetch_linked(
        self, view_or_service: str, ids: Ids, link: Link, *, keep_stale: bool = False, now: datetime | None = None
    ) -> tuple[Block, Block | None]:
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
            return fetch_linked(talk, question, link, self._plan(link.name, None, True))

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
        if self._table.views.is_known() and not self._is_due():
            question = self._question(view_or_service, ids, features, full_feature_names, out)
        else:
            question = await asyncio.to_thread(self._question, view_or_service, ids, features, full_feature_names, out)
        requests = question.requests()
        found = await self._table.store.read_async([request.keys for request in requests])
        return question.answer(self._table.unpack(requests, found, _microseconds(now), keep_stale))

    def services(self) -> tuple[str, ...]:
        """The names of the feature services, sorted."""
        self._look_again()
        return tuple(sorted(self._table.views.record().services))

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
        if not self._table.views.reload().views:
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
            self._table.views.reload()

    def _question(
        self,
        name: str,
        ids: Ids,
        features: Sequence[str] | None,
        full_feature_names: bool,
        out: "Mapping[str, NDArray[Any] | torch.Tensor] | None",
    ) -> Question:
        self._look_again()
        return self._plan(name, features, full_feature_names).ask(ids, out or {})

    def _plan(self, name: str, features: Sequence[str] | None, full_feature_names: bool) -> Plan:
        """What these features ask for, worked out anew when the store says something else than before."""
        asked = (name, None if features is None else tuple(features), full_feature_names)
        plan, record = self._plans.get(asked), self._table.views.record()
        if plan is None or plan.record is not record:
            parts, on_demand = self._parts(name, features)
            plan = Plan.of(self._table, record, name, parts, on_demand, full_feature_names)
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            self._plans[asked] = plan
        return plan

    def _parts(self, name: str, features: Sequence[str] | None) -> tuple[tuple[ServicePart, ...], tuple[str, ...]]:
        record = self._table.views.record()
        if name not in record.services and name not in record.views:
            record = self._table.views.reload()
        service = record.services.get(name)
        if service is not None and features is None:
            return service.parts, service.on_demand
        if name not in record.views:
            kind = UnknownFeatures if record.services else NoServices
            raise kind(_unknown(name, self._table.project, record))
        known = tuple(field.name for field in record.views[name].layout.fields)
        missing = [one for one in features or () if one not in known]
        if missing:
            raise UnknownFeatures(f"view `{name}` has no feature {', '.join(missing)}; it has {', '.join(known)}")
        return (ServicePart(name, name, known if features is None else tuple(features)),), ()


def _unknown(name: str, project: str, record: Record) -> str:
    views, services = ", ".join(sorted(record.views)) or "none", ", ".join(sorted(record.services)) or "none"
    return (
        f"the online store has neither a service nor a view `{name}` in project `{project}`; services: {services}; "
        f"views: {views}. Run `feast apply`, then materialize"
    )


def _microseconds(now: datetime | None) -> int:
    return time.time_ns() // 1_000 if now is None else timestamps.tick(now, "us")
