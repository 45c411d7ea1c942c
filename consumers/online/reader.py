"""Reads online features for ranking services: 500 candidates as matrices, without Feast and without a registry.

    reader = OnlineReader("redis://localhost:6379", project="vitrine")
    batch = reader.fetch("product_embedding", candidates)
    batch.values["fused_vector"]                     # float32 [500, width]
    batch.status == Status.PRESENT                   # [500]

The views and services are read from the catalog in the online store (feature_repo/online/catalog.py). A process that
reads many times should call `feature_repo.memory.keep_freed()` first.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from consumers.online.errors import NoServicesError, UnknownFeaturesError
from consumers.online.two_hops import Link, fetch_two_hops
from feature_repo.arrow import timestamps
from feature_repo.errors import IncompleteStoreError, NotFoundError
from feature_repo.online.catalog import ProjectCatalog, Service, ServiceView
from feature_repo.online.feature_batch import FeatureBatch
from feature_repo.online.open_store import open_store
from feature_repo.online.request_plan import Ids, PlannedRequest, RequestPlan, keep_plan
from feature_repo.online.table import OnlineTable

if TYPE_CHECKING:
    import torch


class OnlineReader:
    """Reads the online features of one project. Threads and event loops may share a reader.

    Args:
        url: lmdb:///folder, or a Redis URL as feature_repo/online/redis_connection.py describes it.
        project: the project's name in Feast.
        refresh: seconds after which the next call reads the catalog again. A change of views, TTLs or services is seen
            by then; a new layout of rows is seen with the first such row.

    Raises:
        InvalidInputError: the URL is malformed or of another scheme.
        NotFoundError: the LMDB folder holds no store.
        CorruptDataError: the LMDB file is damaged.
        UnavailableError: the store cannot be opened. A single Redis server is first asked when a method is called.
    """

    def __init__(self, url: str, project: str, *, refresh: float = 60.0) -> None:
        self._open(OnlineTable(open_store(url), project), refresh)

    @classmethod
    def from_table(cls, table: OnlineTable, *, refresh: float = 60.0) -> "OnlineReader":
        """Return a reader of a store that is already open. `close` closes the store.

        Args:
            table: the project's rows.
            refresh: seconds after which the next call reads the catalog again.
        """
        reader = cls.__new__(cls)
        reader._open(table, refresh)
        return reader

    def _open(self, table: OnlineTable, refresh: float) -> None:
        self._table = table
        self._refresh_seconds = refresh
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
        """Return the features of some entities, one row for each id, in the order of the ids.

        An id without a row gives a row with status ABSENT and missing values. Repeated ids are read once, and each
        gives a row. No ids give a batch of 0 rows.

        Args:
            view_or_service: name of a feature service, or else of a feature view.
            ids: the id of each row. With several join keys, a mapping from join key to the ids of the rows, or to one
                id for all rows.
            features: names of the view's features to return, in this order; None: all. With a service's name they
                raise UnknownFeaturesError.
            full_feature_names: whether features are called view__feature, as in Feast.
            keep_stale: whether rows older than their view's TTL keep their values. Otherwise their values are missing.
                Their status is STALE in both cases.
            out: for some float features, the array or CPU tensor that receives the values: [n], or [n, width].
            now: a row is stale if it is older than its view's TTL at this time; a datetime without a time zone is UTC;
                None: the current time.

        Raises:
            UnknownFeaturesError: the store has no such service, view or feature.
            NoServicesError: the store has no such service or view, and has no services at all.
            NotFoundError: a service names a view or feature that no longer exists, or `out` an unknown feature.
            InvalidInputError: ids of a join key are missing or differ in number, two features have the same name, or an
                array of `out` does not fit its feature.
            UnavailableError: the store does not answer.
        """
        request = self._make_request(view_or_service, ids, features, full_feature_names, out)
        with self._table.pipeline(_microseconds(now), keep_stale=keep_stale) as pipeline:
            for index in request.plan.read_order:
                pipeline.send(request.view_request(index))
            rows = {index: pipeline.receive() for index in request.plan.read_order}
        return request.build_batch([rows[index] for index in sorted(rows)])

    def fetch_linked(
        self, view_or_service: str, ids: Ids, link: Link, *, keep_stale: bool = False, now: datetime | None = None
    ) -> tuple[FeatureBatch, FeatureBatch | None]:
        """Return the features of some entities, and of other entities that one of their rows names (a two-hop fetch).

        Both are read in one pipeline: while the store looks up the second hop, rows of the first are decoded. A view of
        both hops is read and decoded once.

        Args:
            view_or_service: name of a feature service that has the link's view, or of that view.
            ids: the id of each row of the first hop, or a mapping from join key to the ids of the rows or to one id for
                all rows.
            link: the second hop.
            keep_stale: whether rows of both hops that are older than their view's TTL keep their values. Otherwise
                their values are missing.
            now: the time by which rows of both hops are stale or not; a datetime without a time zone is UTC; None: the
                current time.

        Returns:
            The batches of the first and the second hop, both with full feature names (view__feature), their rows in the
            order of the ids. The second is None if `link.ids` returned no ids.

        Raises:
            UnknownFeaturesError: the store has no such service or view, of either hop.
            NoServicesError: the same, if the store has no services at all.
            NotFoundError: the service of the first hop lacks the link's view, or a service names a view or feature that
                no longer exists.
            InvalidInputError: ids of a join key are missing or differ in number.
            UnavailableError: the store does not answer.
        """
        self._refresh()
        names = (view_or_service, link.name)
        first, second = (self._plan(name, None, True) for name in names)
        while first.catalog is not second.catalog:  # another thread has read it again; both hops need the same one
            first, second = (self._plan(name, None, True) for name in names)
        with self._table.pipeline(_microseconds(now), keep_stale=keep_stale) as pipeline:
            return fetch_two_hops(pipeline, first.bind(ids, {}), link, second)

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
        """Return the features of some entities, as `fetch` does, without blocking the event loop for the read.

        One row for each id, in the order of the ids; an id without a row gives status ABSENT.

        Args:
            view_or_service: name of a feature service, or else of a feature view.
            ids: the id of each row, or a mapping from join key to the ids of the rows or to one id for all rows.
            features: names of the view's features to return, in this order; None: all. With a service's name they
                raise UnknownFeaturesError.
            full_feature_names: whether features are called view__feature.
            keep_stale: whether rows older than their view's TTL keep their values. Otherwise their values are missing.
            out: for some float features, the array or CPU tensor that receives the values: [n], or [n, width].
            now: the time by which rows are stale or not; without a time zone it is UTC; None: the current time.

        Raises:
            UnknownFeaturesError: the store has no such service, view or feature.
            NoServicesError: the store has no such service or view, and has no services at all.
            NotFoundError: a service names a view or feature that no longer exists, or `out` an unknown feature.
            InvalidInputError: ids of a join key are missing or differ in number, two features have the same name, or an
                array of `out` does not fit its feature.
            UnavailableError: the store does not answer.
        """
        if self._table.catalog.is_fresh(self._refresh_seconds):
            request = self._make_request(view_or_service, ids, features, full_feature_names, out)
        else:
            request = await asyncio.to_thread(
                self._make_request, view_or_service, ids, features, full_feature_names, out
            )
        requests = request.view_requests()
        values = await self._table.store.read_async([one.keys for one in requests])
        return request.build_batch(self._table.unpack(requests, values, _microseconds(now), keep_stale))

    def services(self) -> tuple[str, ...]:
        """Return the names of the feature services, sorted; empty if the store has none.

        Raises:
            UnavailableError: the store does not answer.
        """
        self._refresh()
        return tuple(sorted(self._table.catalog.load().services))

    def join_keys(self, view_or_service: str) -> dict[str, tuple[str, ...]]:
        """Return the join keys of each view of a service, under the service's names of views and join keys.

        The views are in the service's order, the join keys of each sorted by the view's own names for them. A view
        without entities has an empty tuple. The name of a view gives this view only.

        Args:
            view_or_service: name of a feature service, or else of a feature view.

        Raises:
            UnknownFeaturesError: there is no such service or view.
            NoServicesError: the same, if the store has no services at all.
            NotFoundError: the service names a view or feature that no longer exists.
            UnavailableError: the store does not answer.
        """
        self._refresh()
        return {view.name: view.join_keys for view in self._plan(view_or_service, None, True).views}

    def on_demand(self, view_or_service: str) -> tuple[str, ...]:
        """Return the names of a service's on-demand views, in the service's order; empty for a view.

        They are computed for each request. The store does not hold them, and this reader does not compute them.

        Args:
            view_or_service: name of a feature service, or else of a feature view.

        Raises:
            UnknownFeaturesError: there is no such service or view.
            NoServicesError: the same, if the store has no services at all.
            NotFoundError: the service names a view or feature that no longer exists.
            UnavailableError: the store does not answer.
        """
        self._refresh()
        return self._plan(view_or_service, None, True).on_demand

    def child_age_bounds(self) -> tuple[float, ...]:
        """Return the bounds of the deployment's child age stages in months, one more than stages, youngest first.

        Raises:
            UnavailableError: the store does not answer.
        """
        self._refresh()
        return self._table.catalog.load().age_bounds

    def ping(self) -> None:
        """Read the catalog, to see whether the store answers and has what its services need.

        Raises:
            IncompleteStoreError: the store has no views, or a service names a view that it lacks.
            UnavailableError: the store does not answer.
        """
        gaps = self._table.catalog.reload().find_gaps()
        if gaps:
            raise IncompleteStoreError(f"project `{self._table.project}`: {'; '.join(gaps)}")

    def close(self) -> None:
        """Close the store's connections. A store in an LMDB file stays open for other readers of the process."""
        self._table.store.close()

    def __enter__(self) -> "OnlineReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refresh(self) -> None:
        """Read the catalog again if it was read more than `refresh` seconds ago."""
        self._table.catalog.refresh(self._refresh_seconds)

    def _make_request(
        self,
        name: str,
        ids: Ids,
        features: Sequence[str] | None,
        full_feature_names: bool,
        out: "Mapping[str, NDArray[Any] | torch.Tensor] | None",
    ) -> PlannedRequest:
        """Return the planned request for these ids; read the catalog again first if that is due."""
        self._refresh()
        return self._plan(name, features, full_feature_names).bind(ids, out or {})

    def _plan(self, name: str, features: Sequence[str] | None, full_feature_names: bool) -> RequestPlan:
        """Return the plan of these features. It is made again when the catalog has been read again."""
        key = (name, None if features is None else tuple(features), full_feature_names)
        plan, catalog = self._plans.get(key), self._table.catalog.load()
        if plan is None or plan.catalog is not catalog:
            try:
                plan = self._build_plan(catalog, *key)
            except (NotFoundError, NoServicesError):  # perhaps it is new, and the catalog as last read lacks it
                plan = self._build_plan(self._table.catalog.reload(), *key)
            keep_plan(self._plans, key, plan)
        return plan

    def _build_plan(
        self, catalog: ProjectCatalog, name: str, features: tuple[str, ...] | None, full_feature_names: bool
    ) -> RequestPlan:
        """Return the plan of a service, or of a view or some of its features, from one catalog."""
        service = catalog.services.get(name)
        if service is None or features is not None:
            service = Service((_select_features(catalog, self._table.project, name, features),))
        return RequestPlan.build(self._table, catalog, name, service.views, service.on_demand, full_feature_names)


def _select_features(catalog: ProjectCatalog, project: str, name: str, features: tuple[str, ...] | None) -> ServiceView:
    """Return some features of a view, None for all; raise an error if the catalog lacks the view or a feature."""
    view = catalog.find_view(name)
    if view is None and name in catalog.services:
        raise UnknownFeaturesError(f"`{name}` is a feature service; features can be selected from a view only")
    if view is None:
        error = UnknownFeaturesError if catalog.services else NoServicesError
        services, views = (", ".join(sorted(names)) or "none" for names in (catalog.services, catalog.list_views()))
        raise error(
            f"the online store has no service or view `{name}` in project `{project}`; services: {services}; "
            f"views: {views}. Run `feast apply`, then materialize"
        )
    known = tuple(field.name for field in view.layout.fields)
    missing = [feature for feature in features or () if feature not in known]
    if missing:
        raise UnknownFeaturesError(f"view `{name}` has no feature {', '.join(missing)}; it has {', '.join(known)}")
    return ServiceView(name, name, known if features is None else features)


def _microseconds(now: datetime | None) -> int:
    return time.time_ns() // 1_000 if now is None else timestamps.datetime_to_ticks(now, "us")
