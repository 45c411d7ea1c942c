"""Feast's `OnlineStore` on packed rows, for LMDB and for Redis. Asynchronous methods differ only in how they wait."""

import asyncio
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from feast import Entity, FeatureService, FeatureStore, FeatureView
from feast.infra.registry.base_registry import BaseRegistry
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

from feature_repo.arrow import columns
from feature_repo.online import entity_keys
from feature_repo.online.catalog import View
from feature_repo.online.materialize import Packer
from feature_repo.online.store import Store
from feature_repo.online.table import OnlineTable, ViewRequest
from feature_repo.stores.online import values, views
from feature_repo.stores.online.documents import DocumentStore
from feature_repo.stores.online.feast_request import EntityRows, FeastPlanCache, OneVersion, convert_entity_rows

REFRESH_SECONDS = 60.0  # age of the catalog at which a call reads it again
FeastRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""A row as Feast writes it: entity key, features, event timestamp, created timestamp (None: unknown)."""


class PackedOnlineStore(DocumentStore):
    """The base of this project's two online stores for Feast; a subclass implements `_open`. Threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: dict[str, tuple[Any, OnlineTable]] = {}
        self._plans = FeastPlanCache()

    @abstractmethod
    def _open(self, config: RepoConfig) -> Store:
        """Open the store that the configuration names."""

    def _deletes_rows(self, config: RepoConfig) -> bool:
        """Return whether a deleted view's rows are deleted. Otherwise they are read again if it is applied again."""
        return True

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Which methods have an asynchronous form: both reading and writing."""
        return SupportedAsyncMethods(read=True, write=True)

    def _is_versioned_read_supported(self) -> bool:
        return True

    def online_table(self, config: RepoConfig) -> OnlineTable:
        """Return the project's packed rows, with a catalog that is at most REFRESH_SECONDS old.

        The store is opened at the first call, and again for another `config.online_store` object.

        Args:
            config: the deployment.

        Raises:
            VitrineError: the store cannot be opened.
        """
        with self._lock:
            entry = self._tables.get(config.project)
            if entry is None or entry[0] is not config.online_store:
                entry = config.online_store, OnlineTable(self._open(config), config.project)
                self._tables[config.project] = entry
        entry[1].catalog.refresh(REFRESH_SECONDS)
        return entry[1]

    def packer(self, config: RepoConfig, table: FeatureView, encoder_version: str | None = None) -> Packer:
        """Return the packer of a view's Arrow rows, and register the view.

        The rows have the column names of the view's batch source after its field mapping. Maps and structs become the
        bytes of Feast's `Value`.

        Args:
            config: the deployment.
            table: the view, which must have a batch source.
            encoder_version: the version of the rows of a view that is derived from an encoder; None: in production.

        Raises:
            ConflictError: another view's keys have the same prefix, or an older layout has the same fingerprint.
            UnavailableError: the store does not answer.
        """
        _, view = self._register(config, table, encoder_version)
        source = table.batch_source
        assert source is not None
        has_messages = any(field.is_message for field in view.layout.fields)
        return Packer(
            view,
            source.timestamp_field,
            source.created_timestamp_column or None,
            values.from_arrow if has_messages else columns.from_arrow,
        )

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows. A row that is older than the stored one of its entity is not written.

        Of several rows of one entity the newest is written. The view is registered in the store first.

        Args:
            config: the deployment.
            table: the view.
            data: the rows, all with the same join keys; a feature that a row lacks is null, an unknown one is ignored.
            progress: called once, with the number of rows in `data`, when they are written; None: nothing is called.

        Raises:
            VitrineError: a value does not fit its feature, or the store does not answer.
        """
        online, view = self._register(config, table)
        online.store.write(*self._pack(online, view, data), view.ttl_us)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write the rows that `online_write_batch` would write, without blocking the event loop.

        Args:
            config: the deployment.
            table: the view.
            data: the rows, all with the same join keys; a feature that a row lacks is null, an unknown one is ignored.
            progress: called once, with the number of rows in `data`, when they are written; None: nothing is called.

        Raises:
            VitrineError: a value does not fit its feature, or the store does not answer.
        """
        online, view = await asyncio.to_thread(self._register, config, table)
        keys, rows = await asyncio.to_thread(self._pack, online, view, data)
        await online.store.write_async(keys, rows, view.ttl_us)
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Return event timestamp and features of each entity; (None, None) for one that is absent or failed.

        A row that is older than its view's TTL is returned too, as Feast's own stores return it. The result is in the
        order of the entity keys; repeats are allowed.

        Args:
            config: the deployment.
            table: the view.
            entity_keys: the entities, all with the same join keys; none give an empty list.
            requested_features: names of features; unknown ones are ignored. None: all.

        Raises:
            VitrineError: the store cannot be opened or does not answer.
        """
        online = self.online_table(config)
        request = self._request(online, config, table, entity_keys, requested_features)
        return values.to_feast(online.read([request], _now(), keep_stale=True)[0])

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Return what `online_read` returns, or raise what it raises, without blocking the event loop.

        Args:
            config: the deployment.
            table: the view.
            entity_keys: the entities, all with the same join keys; none give an empty list.
            requested_features: names of features; unknown ones are ignored. None: all.
        """
        online = await asyncio.to_thread(self.online_table, config)
        request = await asyncio.to_thread(self._request, online, config, table, entity_keys, requested_features)
        raw = await online.store.read_async([request.keys])
        return values.to_feast((await asyncio.to_thread(online.unpack, [request], raw, _now(), True))[0])

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """Return online features as a `ColumnarResponse`; if on-demand views are among them, Feast's own response.

        The response has the entity rows in their order, repeats included. A row that is absent or failed has missing
        values, and its status says which. A row that is older than its view's TTL has its values, as from Feast's own
        stores, and the status OUTSIDE_MAX_AGE.

        Args:
            config: the deployment.
            features: references `view:feature`, or a feature service.
            entity_rows: the entities, as a list of rows or as lists of values by column name.
            registry: has the views.
            project: the project's name in the registry.
            full_feature_names: whether features are called view__feature.
            include_feature_view_version_metadata: whether the protobuf form says which version of each view was read.

        Raises:
            KeyError: a join key is missing in the entity rows.
            ValueError: the entity rows do not all have the same columns.
            IndexError: the entity rows are an empty list.
            InvalidInputError: an id is missing or does not fit its join key's type.
            UnavailableError: the store does not answer.
        """
        online = self.online_table(config)
        plan = self._plans.get(online, config, features, registry, project, full_feature_names)
        if plan is None:
            entity_rows = convert_entity_rows(entity_rows, features, registry, project, full_feature_names)
            arguments = (config, features, entity_rows, registry, project, full_feature_names)
            while True:  # Feast reads view by view, and the encoder version may be switched between two of them
                with OneVersion(online.catalog) as version:
                    response = super().get_online_features(*arguments, include_feature_view_version_metadata)
                if version.is_kept:
                    return response
        request = plan.bind(entity_rows)
        rows = online.read(request.request.view_requests(), _now(), keep_stale=True)
        return request.build_response(rows, include_feature_view_version_metadata)

    async def get_online_features_async(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """Return what `get_online_features` returns, or raise what it raises, without blocking the event loop.

        Args:
            config: the deployment.
            features: references `view:feature`, or a feature service.
            entity_rows: the entities, as a list of rows or as lists of values by column name.
            registry: has the views.
            project: the project's name in the registry.
            full_feature_names: whether features are called view__feature.
            include_feature_view_version_metadata: whether the protobuf form says which version of each view was read.
        """
        online = await asyncio.to_thread(self.online_table, config)
        plan = await asyncio.to_thread(self._plans.get, online, config, features, registry, project, full_feature_names)
        if plan is None:
            entity_rows = convert_entity_rows(entity_rows, features, registry, project, full_feature_names)
            arguments = (config, features, entity_rows, registry, project, full_feature_names)
            while True:  # as in `get_online_features`
                with OneVersion(online.catalog) as version:
                    response = await super().get_online_features_async(
                        *arguments, include_feature_view_version_metadata
                    )
                if version.is_kept:
                    return response
        request = plan.bind(entity_rows)
        requests = request.request.view_requests()
        raw = await online.store.read_async([one.keys for one in requests])
        rows = await asyncio.to_thread(online.unpack, requests, raw, _now(), True)
        return request.build_response(rows, include_feature_view_version_metadata)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Register the kept views and the services, so that readers find them; drop the deleted views with their rows.

        A deleted view that the store does not have is ignored. In Redis without `full_scan_for_deletion`, deleted views
        and their rows stay.

        Args:
            config: the deployment.
            tables_to_delete: the deleted views.
            tables_to_keep: the other views; one that is not written online is not registered.
            entities_to_delete: not used.
            entities_to_keep: the applied entities; like `partial` for `check_applied` only.
            partial: whether only the given objects are applied; False in `feast apply`, which applies all.

        Raises:
            InvalidInputError: there is nothing to apply.
            ConflictError: another view's keys have the same prefix, or an older layout has the same fingerprint.
            UnavailableError: the store does not answer.
        """
        views.check_applied(config, tables_to_delete, tables_to_keep, entities_to_keep, partial=partial)
        online = self.online_table(config)
        for table in tables_to_delete if self._deletes_rows(config) else ():
            online.catalog.drop_view(views.stored_name(config, table))
        for table in tables_to_keep:
            if getattr(table, "write_to_online_store", True):
                online.catalog.register_view(views.stored_view(config, table))
        self.publish_services(config, FeatureStore(config=config).registry)

    def publish_services(self, config: RepoConfig, registry: BaseRegistry) -> None:
        """Register a registry's feature services so that readers find them; others are removed from the store.

        `feast apply` does this. With a file registry it updates the online store before it writes the registry, so
        readers find a new service only after the next materialization, `feast apply` or call of this method.
        """
        self.online_table(config).catalog.set_services(views.stored_services(config, registry))

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Drop the views with their rows, whatever `full_scan_for_deletion` is, and the project once it has no views.

        Args:
            config: the deployment.
            tables: the views; one that the store does not have is ignored. Feast leaves out on-demand views, which are
                dropped too.
            entities: not used.
        """
        online = self.online_table(config)
        for table in (*tables, *FeatureStore(config=config).registry.list_on_demand_feature_views(config.project)):
            online.catalog.drop_view(views.stored_name(config, table))
        if not online.catalog.reload().views:
            online.catalog.drop_project()

    def delete_entities(self, config: RepoConfig, table: FeatureView, join_keys: Mapping[str, Sequence[Any]]) -> None:
        """Delete the rows of some entities from a view, of every encoder version. Entities without a row are ignored.

        Args:
            config: the deployment.
            table: the feature view.
            join_keys: the entities' values for each join key of the view, by name: entity i has value i of each.

        Raises:
            NotFoundError: the store has no such view.
            KeyError: a join key of the view is missing.
            ValueError: the join keys have different numbers of values.
            InvalidInputError: a value is not text, bytes or an integer.
            UnavailableError: the store does not answer.
        """
        online = self.online_table(config)
        name = views.stored_name(config, table)
        # Without any version, `get_view` raises the error.
        for view in online.catalog.reload().list_versions(name) or [online.catalog.get_view(name)]:
            online.store.delete(online.make_keys(view, join_keys, len(next(iter(join_keys.values()), [""]))))

    def _register(
        self, config: RepoConfig, table: FeatureView, encoder_version: str | None = None
    ) -> tuple[OnlineTable, View]:
        """Return the project's rows, and the view to pack rows for; if the store lacks it, all views are registered."""
        online, view = self.online_table(config), views.stored_view(config, table)
        if not online.catalog.has_view(view.name):
            views.publish_catalog(online.catalog, config, FeatureStore(config=config).registry)
        return online, online.catalog.register_layout(view, encoder_version)

    def _pack(self, online: OnlineTable, view: View, data: list[FeastRow]) -> tuple[list[bytes], list[bytes]]:
        """Return keys and packed rows of Feast's rows; for a repeated entity only its newest row."""
        keys = values.make_keys(entity_keys.make_prefix(online.project, view.name), [row[0] for row in data])
        features = {
            field.name: values.to_column(field, [row[1].get(field.name) for row in data])
            for field in view.layout.fields
        }
        event = values.to_microseconds([row[2] for row in data])
        created = values.to_microseconds([row[3] for row in data])
        return online.pack(view, keys, features, event, created)

    def _request(
        self,
        online: OnlineTable,
        config: RepoConfig,
        table: FeatureView,
        keys: list[EntityKey],
        requested_features: list[str] | None,
    ) -> ViewRequest:
        """Return what to read of a view for these entities; features that the view lacks are ignored."""
        view = views.stored_view(config, table)
        fields = [f for f in view.layout.fields if requested_features is None or f.name in requested_features]
        stored = online.catalog.with_stored_layouts(view)
        prefix = entity_keys.make_prefix(online.project, stored.name)
        return ViewRequest(stored, tuple(fields), values.make_keys(prefix, keys))


def _now() -> int:
    """Return microseconds since 1970 UTC. Feast's calls have no argument for the time of the request."""
    return time.time_ns() // 1_000
