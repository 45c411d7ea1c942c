"""A call of `get_online_features`: what it asks of which views, worked out once for each set of features."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from feast import FeatureService
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig
from feast.value_type import ValueType
from numpy.typing import NDArray

from feature_repo.arrow.field import Field
from feature_repo.online import entity_keys
from feature_repo.online.catalog import ProjectCatalog, View
from feature_repo.online.decode import DecodedRows, Status
from feature_repo.online.feature_batch import ViewRows
from feature_repo.online.request import deduplicate_keys
from feature_repo.online.table import OnlineTable, ViewRequest
from feature_repo.stores.feast_compat import RequestContext, request_context, track_feature_statuses
from feature_repo.stores.online import entities, views
from feature_repo.stores.online.entities import EntityRows
from feature_repo.stores.online.response import ColumnarResponse, FeastViewRows, RequestColumn

PLANS_KEPT = 256


@dataclass(frozen=True)
class _Part:
    """What is asked of one view."""

    view: View
    feast_name: str
    version: int
    fields: tuple[Field, ...]
    names: Mapping[str, str]
    """The features, by their names in the response."""
    join_keys: tuple[str, ...]
    """The request's columns that say which entity, in the order of the view's own names."""


@dataclass(frozen=True)
class FeastRequest:
    """What is asked for some entities."""

    parts: Sequence[_Part]
    requests: list[ViewRequest]
    places: list[NDArray[np.int64] | None]
    """Of each part, which of its distinct entities each row asks for."""
    given: Mapping[str, RequestColumn]
    count: int

    def answer(self, found: Sequence[DecodedRows], versions: bool) -> ColumnarResponse:
        """The response, from what was read for each request."""
        read = [
            FeastViewRows(ViewRows(rows, place, part.names), part.feast_name, part.version)
            for part, rows, place in zip(self.parts, found, self.places, strict=True)
        ]
        for part, one in zip(self.parts, read, strict=True):
            present = int((one.rows.status() == Status.PRESENT).sum()) * len(part.names)
            track_feature_statuses(part.feast_name, present, self.count * len(part.names) - present)
        return ColumnarResponse(self.given, read, self.count, versions)


@dataclass(frozen=True)
class FeastPlan:
    """How to answer for a set of features."""

    context: RequestContext
    """Feast's own resolution of the features, which it replaces when the registry has changed."""
    record: ProjectCatalog
    """What the store said of the project."""
    parts: tuple[_Part, ...]
    join_keys: frozenset[str]
    of_entity: Mapping[str, str]
    types: Mapping[str, ValueType]

    @staticmethod
    def of(online: OnlineTable, config: RepoConfig, context: RequestContext, full_feature_names: bool) -> "FeastPlan":
        parts = tuple(_part(online, config, table, names, full_feature_names) for table, names in context.views)
        return FeastPlan(
            context, online.catalog.load(), parts, context.join_keys, context.join_key_of_entity, context.types
        )

    def ask(self, online: OnlineTable, entity_rows: EntityRows) -> FeastRequest:
        """The question for some entities.

        Raises:
            KeyError: a view's join key is not among the columns.
            ValueError: the rows differ in their columns.
        """
        given = entities.by_column(entity_rows)
        count = len(next(iter(given.values()), []))
        join_keys = entities.join_keys(given, self.join_keys, self.of_entity, self.types)
        requests, places = [], []
        for part in self.parts:
            missing = [name for name in part.join_keys if name not in join_keys]
            if missing:
                raise KeyError(f"Missing join key values for keys: {missing}. Provided: {list(given)}")
            texts = [join_keys[name] for name in part.join_keys] or [[""] * count]
            prefix = entity_keys.make_prefix(online.project, part.view.name)
            keys, place = deduplicate_keys(entity_keys.make_keys(prefix, texts))
            requests.append(ViewRequest(part.view, part.fields, keys))
            places.append(place)
        return FeastRequest(
            self.parts,
            requests,
            places,
            {
                name: RequestColumn(column, self.types.get(name, ValueType.UNKNOWN))
                for name, column in join_keys.items()
            },
            count,
        )


class FeastPlanCache:
    """The plans worked out so far. Threads may share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[int, FeastPlan] = {}

    def find(
        self,
        online: OnlineTable,
        config: RepoConfig,
        features: list[str] | FeatureService,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool,
    ) -> FeastPlan | None:
        """How to answer for these features, as before while neither the registry nor the store has changed.

        None if on-demand views are among them.
        """
        context = request_context(registry, project, features, full_feature_names)
        if context.asks_on_demand_views:
            return None
        known = self._plans.get(id(context.feasts_own))
        record = online.catalog.load()
        if known is not None and known.context.feasts_own is context.feasts_own and known.record is record:
            return known
        plan = FeastPlan.of(online, config, context, full_feature_names)
        with self._lock:
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            self._plans[id(context.feasts_own)] = plan
        return plan


def _part(
    online: OnlineTable,
    config: RepoConfig,
    table: Any,
    features: Sequence[str],
    full_feature_names: bool,
) -> _Part:
    asked = views.stored_view(config, table)
    alias = table.projection.join_key_map
    own = sorted(name for name, _ in asked.join_keys)
    name = table.projection.name_to_use()
    return _Part(
        view=online.catalog.with_stored_layouts(asked),
        feast_name=table.projection.name_alias or table.projection.name,
        version=getattr(table, "current_version_number", 0) or 0,
        fields=tuple(asked.layout.fields_by_name[feature] for feature in features),
        names={f"{name}__{feature}" if full_feature_names else feature: feature for feature in features},
        join_keys=tuple(alias.get(key, key) for key in own),
    )
