"""Converts Feast's feature views and services to those of the online store's catalog."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

from feast import Entity, FeatureService, OnDemandFeatureView
from feast import Field as FeastField
from feast.errors import FeatureViewNotFoundException
from feast.feature_view_projection import FeatureViewProjection
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig

from feature_repo.age_scale import SETTING, AgeScale, parse_age_scale
from feature_repo.arrow.field import NUMBERS, Field
from feature_repo.errors import InvalidInputError
from feature_repo.online.catalog import Service, ServiceView, View
from feature_repo.online.row_format import Layout
from feature_repo.online.store_catalog import StoreCatalog
from feature_repo.stores.feast_compat import DUMMY_ENTITY_ID, compute_versioned_name

log = logging.getLogger(__name__)
WHERE_TO_APPLY = (
    "`feast apply` reads the definitions in the working directory, not beside feature_store.yaml: run it in the folder "
    "feature_repo, and name the file by FEAST_FS_YAML_FILE_PATH"
)


def check_applied(
    config: RepoConfig, deleted: Sequence[Any], kept: Sequence[Any], entities: Sequence[Entity], *, partial: bool
) -> None:
    """Refuse to apply a repository without any definition; warn if views are deleted and none is applied.

    Args:
        config: the deployment.
        deleted: the views that are deleted.
        kept: the views that are applied.
        entities: the entities that are applied; Feast always adds one of its own for views without entities.
        partial: whether only the given objects are applied, so that others may remain; then nothing is checked.

    Raises:
        InvalidInputError: there is no view and no entity of the caller's.
    """
    if partial or kept or any(entity.join_key != DUMMY_ENTITY_ID for entity in entities):
        return
    if not deleted:
        raise InvalidInputError(
            f"project {config.project}: nothing to apply, no definition was found; {WHERE_TO_APPLY}"
        )
    log.warning("project %s: %d views deleted and none applied; %s", config.project, len(deleted), WHERE_TO_APPLY)


def stored_name(config: RepoConfig, table: Any) -> str:
    """Return a feature view's name in the online store. If Feast keeps versions, the version is part of it.

    Version 2 of view `a` is `a_v2`; version 0, and a view without versions, keep the name.

    Args:
        config: the deployment; says whether Feast keeps versions of views online.
        table: a feature view of any of Feast's kinds.
    """
    return compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)


def stored_view(config: RepoConfig, table: Any) -> View:
    """Return a feature view as the online store knows it, with one layout: that of new rows.

    Its dictionaries have no ids yet. A view without a TTL has 0: its rows never become stale.

    Args:
        config: the deployment.
        table: a feature view of any of Feast's kinds.

    Raises:
        InvalidInputError: the tag `storage` of a field does not fit its type.
    """
    ttl = getattr(table, "ttl", None)
    join_keys = {column.name: _type(column) for column in table.entity_columns if column.name != DUMMY_ENTITY_ID}
    return View(
        name=stored_name(config, table),
        join_keys=tuple(sorted(join_keys.items())),
        ttl_us=round(ttl.total_seconds() * 1_000_000) if ttl else 0,
        layouts=(Layout.from_fields(stored_field(field, _age_scale(config)) for field in table.features),),
    )


def stored_field(field: FeastField, age_scale: AgeScale) -> Field:
    """Return a feature's stored form: the tag `storage` is its storage, `vector_length` the length of its lists.

    Without the tag the storage is "plain". `vector_length` counts only for lists of numbers; 0 means any length.
    With the tag `length: child_age_stages` the length is the number of stages.

    Raises:
        InvalidInputError: the tag `storage` does not fit the feature's type.
    """
    bare = Field(field.name, _type(field))
    is_vector = bare.is_list and bare.base in NUMBERS
    is_scale = field.tags.get("length") == SETTING
    length = len(age_scale.stages) if is_scale else getattr(field, "vector_length", 0)
    return Field(
        field.name,
        bare.type,
        field.tags.get("storage", "plain"),
        length if is_vector else 0,
    )


def _age_scale(config: RepoConfig) -> AgeScale:
    """Return the scale of child ages of a deployment."""
    return parse_age_scale(getattr(config, SETTING, None))


def publish_catalog(catalog: StoreCatalog, config: RepoConfig, registry: BaseRegistry) -> None:
    """Register a registry's views and feature services in the online store, so that readers find all of them.

    The bounds of the child age stages are registered too.

    Whoever writes rows calls this, because the store may be new or have lost its data. Services that the registry does
    not have are removed from the store; views stay. Nothing is written if the store has the same.

    Args:
        catalog: the project's catalog in the store.
        config: the deployment.
        registry: has the views and services. A view that is not written online is not registered.

    Raises:
        ConflictError: another view's keys have the same prefix, or an older layout has the same fingerprint.
        UnavailableError: the store does not answer.
    """
    for table in registry.list_all_feature_views(config.project):
        if getattr(table, "write_to_online_store", True):
            catalog.register_view(stored_view(config, table))
    catalog.set_services(stored_services(config, registry))
    catalog.set_age_bounds(_age_scale(config).bounds)


def stored_services(config: RepoConfig, registry: BaseRegistry) -> dict[str, Service]:
    """Return the feature services of a registry, by name, in the registry's order; empty if it has none.

    A view that has been deleted stays in a service that names it. On-demand views that are not written online are in
    `Service.on_demand`.

    Args:
        config: the deployment; its project's services are returned.
        registry: has the services and views.
    """
    return {
        service.name: _stored_service(config, registry, service)
        for service in registry.list_feature_services(config.project)
    }


def _stored_service(config: RepoConfig, registry: BaseRegistry, service: FeatureService) -> Service:
    """Return a service with what it has of each stored view and the names of its on-demand views."""
    service_views, on_demand = [], []
    for projection in service.feature_view_projections:
        try:
            table = copy.copy(registry.get_any_feature_view(projection.name, config.project))
        except FeatureViewNotFoundException:
            # Feast keeps a service whose view was deleted. A fetch of it then names the missing view.
            service_views.append(_service_view(projection.name, projection))
            continue
        if isinstance(table, OnDemandFeatureView) and not table.write_to_online_store:
            on_demand.append(projection.name_to_use())
            continue
        table.projection = projection
        service_views.append(_service_view(stored_name(config, table), projection))
    return Service(tuple(service_views), tuple(on_demand))


def _service_view(view: str, projection: FeatureViewProjection) -> ServiceView:
    return ServiceView(
        view=view,
        name=projection.name_to_use(),
        features=tuple(feature.name for feature in projection.features),
        join_keys=tuple(sorted(projection.join_key_map.items())),
    )


def _type(field: FeastField) -> str:
    return field.dtype.to_value_type().name.lower()
