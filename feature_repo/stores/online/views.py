"""Feast's feature views as the online stores' own."""

import copy
from typing import Any

from feast import FeatureService, OnDemandFeatureView
from feast import Field as FeastField
from feast.errors import FeatureViewNotFoundException
from feast.feature_view_projection import FeatureViewProjection
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig

from feature_repo.arrow.field import NUMBERS, Field
from feature_repo.online.catalog import Service, ServiceView, View
from feature_repo.online.row_format import Layout
from feature_repo.stores.feast_compat import DUMMY_ENTITY_ID, compute_versioned_name


def stored_name(config: RepoConfig, table: Any) -> str:
    """What a feature view is called in the online store: its version is part of the name where Feast keeps versions."""
    return compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)


def stored_view(config: RepoConfig, table: Any) -> View:
    """A feature view (of any of Feast's kinds) as it is stored now.

    Raises:
        VitrineError: the tag `storage` of a field does not fit its type.
    """
    ttl = getattr(table, "ttl", None)
    join_keys = {column.name: _type(column) for column in table.entity_columns if column.name != DUMMY_ENTITY_ID}
    return View(
        name=stored_name(config, table),
        join_keys=tuple(sorted(join_keys.items())),
        ttl_us=round(ttl.total_seconds() * 1_000_000) if ttl else 0,
        layouts=(Layout.from_fields(map(stored_field, table.features)),),
    )


def stored_field(field: FeastField) -> Field:
    """A feature as it is stored: its tag `storage` says in which form, its `vector_length` how long its lists are."""
    bare = Field(field.name, _type(field))
    is_vector = bare.is_list and bare.base in NUMBERS
    return Field(
        field.name,
        bare.type,
        field.tags.get("storage", "plain"),
        getattr(field, "vector_length", 0) if is_vector else 0,
    )


def stored_services(config: RepoConfig, registry: BaseRegistry) -> dict[str, Service]:
    """The feature services of a registry, as readers of the online store are told of them."""
    return {
        service.name: _stored_service(config, registry, service)
        for service in registry.list_feature_services(config.project)
    }


def _stored_service(config: RepoConfig, registry: BaseRegistry, service: FeatureService) -> Service:
    parts, on_demand = [], []
    for projection in service.feature_view_projections:
        try:
            table = copy.copy(registry.get_any_feature_view(projection.name, config.project))
        except FeatureViewNotFoundException:
            # Feast keeps a service whose view is gone. So do we: who fetches it is told which view is missing.
            parts.append(_stored_part(projection.name, projection))
            continue
        if isinstance(table, OnDemandFeatureView) and not table.write_to_online_store:
            on_demand.append(projection.name_to_use())
            continue
        table.projection = projection
        parts.append(_stored_part(stored_name(config, table), projection))
    return Service(tuple(parts), tuple(on_demand))


def _stored_part(view: str, projection: FeatureViewProjection) -> ServiceView:
    return ServiceView(
        view=view,
        name=projection.name_to_use(),
        features=tuple(feature.name for feature in projection.features),
        join_keys=tuple(sorted(projection.join_key_map.items())),
    )


def _type(field: FeastField) -> str:
    return field.dtype.to_value_type().name.lower()
