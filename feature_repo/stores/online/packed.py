"""Feast's OnlineStore on packed rows: the whole contract, whichever store the rows lie in.

Sync and async share everything but the waiting: what to ask, and what to make of the answer.
"""

import asyncio
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from feast import Entity, FeatureService, FeatureStore, FeatureView
from feast.infra.online_stores.online_store import OnlineStore
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
from feature_repo.stores.online import entities, values, views
from feature_repo.stores.online.entities import EntityRows
from feature_repo.stores.online.plan import FeastPlanCache

FeastRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


class PackedOnlineStore(OnlineStore):
    """What the two online stores have in common. Threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: dict[str, tuple[Any, OnlineTable]] = {}
        self._plans = FeastPlanCache()

    @abstractmethod
    def _open(self, config: RepoConfig) -> Store:
        """Open the store that the configuration names."""

    def _deletes_rows(self, config: RepoConfig) -> bool:
        """Whether the rows of a deleted view are removed at once; else they stay, and are read if it comes back."""
        return True

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        return SupportedAsyncMethods(read=True, write=True)

    def _is_versioned_read_supported(self) -> bool:
        return True

    def online_table(self, config: RepoConfig) -> OnlineTable:
        """The project's packed rows."""
        known = self._tables.get(config.project)
        if known is None or known[0] is not config.online_store:
            with self._lock:
                known = self._tables.get(config.project)
                if known is None or known[0] is not config.online_store:
                    known = config.online_store, OnlineTable(self._open(config), config.project)
                    self._tables[config.project] = known
        return known[1]

    def packer(self, config: RepoConfig, table: FeatureView) -> Packer:
        """How rows of Arrow are packed, their columns called as the view's batch source calls them after its mapping.

        Maps and structs come as the bytes of Feast's `Value`; a view without them is packed without Feast.
        """
        _, view = self._registered(config, table)
        source = table.batch_source
        assert source is not None
        of_feast = any(field.is_message for field in view.layout.fields)
        return Packer(
            view,
            source.timestamp_field,
            source.created_timestamp_column or None,
            values.from_arrow if of_feast else columns.from_arrow,
        )

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        online, view = self._registered(config, table)
        online.store.write(*self._pack(online, view, data), view.ttl)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        online, view = await asyncio.to_thread(self._registered, config, table)
        keys, rows = await asyncio.to_thread(self._pack, online, view, data)
        await online.store.write_async(keys, rows, view.ttl)
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        online = self.online_table(config)
        request = self._request(online, config, table, entity_keys, requested_features)
        return values.to_feast(online.read([request], _now())[0])

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        online = await asyncio.to_thread(self.online_table, config)
        request = await asyncio.to_thread(self._request, online, config, table, entity_keys, requested_features)
        found = await online.store.read_async([request.keys])
        return values.to_feast((await asyncio.to_thread(online.unpack, [request], found, _now()))[0])

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
        """Online features as a `ColumnarResponse`; with on-demand views, as Feast computes them."""
        online = self.online_table(config)
        plan = self._plans.find(online, config, features, registry, project, full_feature_names)
        if plan is None:
            return super().get_online_features(
                config,
                features,
                entity_rows,
                registry,
                project,
                full_feature_names,
                include_feature_view_version_metadata,
            )
        question = plan.ask(online, entity_rows)
        found = online.read(question.requests, _now())
        return question.answer(found, include_feature_view_version_metadata)

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
        online = await asyncio.to_thread(self.online_table, config)
        plan = await asyncio.to_thread(
            self._plans.find, online, config, features, registry, project, full_feature_names
        )
        if plan is None:
            return await super().get_online_features_async(
                config,
                features,
                entity_rows,
                registry,
                project,
                full_feature_names,
                include_feature_view_version_metadata,
            )
        question = plan.ask(online, entity_rows)
        raw = await online.store.read_async([request.keys for request in question.requests])
        found = await asyncio.to_thread(online.unpack, question.requests, raw, _now())
        return question.answer(found, include_feature_view_version_metadata)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Make the views that are kept known to readers, and remove those that are not, rows included."""
        online = self.online_table(config)
        for table in tables_to_delete if self._deletes_rows(config) else ():
            online.catalog.drop_view(views.stored_name(config, table))
        for table in tables_to_keep:
            if getattr(table, "write_to_online_store", True):
                online.catalog.register_view(views.stored_view(config, table))
        self.publish_services(config, FeatureStore(config=config).registry)

    def publish_services(self, config: RepoConfig, registry: BaseRegistry) -> None:
        """Make the feature services that a registry knows known to readers.

        `feast apply` does so by itself with an SQL registry; a file registry it writes only after it has updated the
        online store, so a new service is known after the next `feast apply`, or after this.
        """
        self.online_table(config).catalog.set_services(views.stored_services(config, registry))

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Remove these views; with the last of them, all that the store says of the project."""
        online = self.online_table(config)
        for table in tables:
            online.catalog.drop_view(views.stored_name(config, table))
        if not online.catalog.reload().views:
            online.catalog.drop_project()

    def delete_entities(self, config: RepoConfig, table: FeatureView, join_keys: Mapping[str, Sequence[Any]]) -> None:
        """Remove the rows of some entities from a view.

        Args:
            join_keys: of each join key of the view, the entities' values.
        """
        online = self.online_table(config)
        view = online.catalog.get_view(views.stored_name(config, table))
        online.store.delete(online.keys(view, join_keys, len(next(iter(join_keys.values()), [""]))))

    def _registered(self, config: RepoConfig, table: FeatureView) -> tuple[OnlineTable, View]:
        online = self.online_table(config)
        return online, online.catalog.register_view(views.stored_view(config, table))

    def _pack(self, online: OnlineTable, view: View, data: list[FeastRow]) -> tuple[list[bytes], list[bytes]]:
        keys = entities.keys_of(entity_keys.make_prefix(online.project, view.name), [row[0] for row in data])
        features = {
            field.name: values.to_column(field, [row[1].get(field.name) for row in data])
            for field in view.layout.fields
        }
        event = values.microseconds([row[2] for row in data])
        created = values.microseconds([row[3] for row in data])
        return online.pack(view, keys, features, event, created)

    def _request(
        self,
        online: OnlineTable,
        config: RepoConfig,
        table: FeatureView,
        keys: list[EntityKey],
        requested_features: list[str] | None,
    ) -> ViewRequest:
        asked = views.stored_view(config, table)
        wanted = [f for f in asked.layout.fields if requested_features is None or f.name in requested_features]
        prefix = entity_keys.make_prefix(online.project, asked.name)
        return ViewRequest(online.catalog.with_stored_layouts(asked), tuple(wanted), entities.keys_of(prefix, keys))


def _now() -> int:
    """Microseconds since 1970 UTC: Feast's calls do not say for when they ask."""
    return time.time_ns() // 1_000
