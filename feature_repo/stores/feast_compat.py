"""The parts of Feast 0.67 that we use beyond its documented plug-in points: check these before an upgrade.

Imported here, and nowhere else:

    request_context                    Feast's cached resolution of a request's features. Feast knows when the registry
                                       has changed, and resolving them ourselves takes longer than reading the rows
    parse_feature_ref                  splits `view@v2:feature` into view, version (None: the latest) and feature
    compute_versioned_name             a view's name in the online store, where Feast keeps versions of views
    compute_non_entity_date_range      the dates of a training set without entity rows
    has_transformation                 whether a view is computed, and so left to Feast's own engine
    track_feature_statuses             the counters of Feast's feature server
    get_online_store                   the online store that a feature store writes to
    LocalComputeEngine and its jobs    the base class of our batch engine, and its results
    DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL  the join key of a view without entities
    EVENT_TIMESTAMP                    the default name of an entity row's time column

Overridden or set elsewhere:

    LocalComputeEngine._materialize_one                         engine.py. Feast does the rest of `materialize`
    RetrievalJob._to_arrow_internal, ._to_df_internal           retrieval.py. They are abstract, but private
    OnlineStore._is_versioned_read_supported                    online/packed.py. Without it Feast refuses `view@v2`
    RepoConfig.registry                                         registry_path.py. Relative SQLite paths are made
                                                                absolute, because Feast resolves them from the working
                                                                directory
    feast.torch_wrapper                                         ../feast_import.py. Torch is imported when it is used
    BaseRegistry.cached_registry_proto.version_id               request_context, below. The SQL registry leaves it empty

tests/feature_repo/stores/test_feast_compat.py checks the name and the signature of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from feast import FeatureService, FeatureStore, utils
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.feature_view_utils import has_transformation
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.offline_stores.offline_utils import DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL as EVENT_TIMESTAMP
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.registry.base_registry import BaseRegistry
from feast.metrics import track_feature_statuses
from feast.utils import _parse_feature_ref as parse_feature_ref
from feast.utils import compute_non_entity_date_range
from feast.value_type import ValueType

__all__ = [
    "DUMMY_ENTITY_ID",
    "DUMMY_ENTITY_VAL",
    "EVENT_TIMESTAMP",
    "FeastRequestContext",
    "LocalComputeEngine",
    "LocalMaterializationJob",
    "MaterializationJobStatus",
    "MaterializationTask",
    "compute_non_entity_date_range",
    "compute_versioned_name",
    "get_online_store",
    "has_transformation",
    "parse_feature_ref",
    "request_context",
    "track_feature_statuses",
]


@dataclass(frozen=True)
class FeastRequestContext:
    """Feast's resolution of the features of a `get_online_features` call."""

    feasts_own: tuple[Any, ...]
    """The tuple that Feast caches: the same object in each call until the registry changes or is read again."""

    @property
    def asks_on_demand_views(self) -> bool:
        """Whether features of on-demand views, which are computed for each request, are among the features."""
        return bool(self.feasts_own[1])

    @property
    def join_key_of_entity(self) -> Mapping[str, str]:
        """The join key of each entity, by the entity's name."""
        return self.feasts_own[2]

    @property
    def types(self) -> Mapping[str, ValueType]:
        """The value type of each join key, by the join key's name."""
        return self.feasts_own[3]

    @property
    def join_keys(self) -> frozenset[str]:
        """The join keys of all views, as the request calls them."""
        return frozenset(self.feasts_own[4])

    @property
    def views(self) -> Sequence[tuple[Any, list[str]]]:
        """Each stored view in Feast's order (of any kind except on-demand), and the names of its requested features."""
        return self.feasts_own[5]


def request_context(
    registry: BaseRegistry, project: str, features: list[str] | FeatureService, full_feature_names: bool
) -> FeastRequestContext:
    """Return Feast's resolution of these features, from Feast's cache if the registry has not changed.

    Feast also caches the views of the registry, by the registry's address in memory and its version. The SQL registry
    has no version, and a registry that was read again is often at the address of an earlier one: Feast would return the
    earlier one's views. Each registry that was read gets a version here.

    Args:
        registry: the registry that has the views.
        project: the project's name.
        features: references `view:feature`, or a feature service.
        full_feature_names: whether features are called view__feature in the response.
    """
    cached = getattr(registry, "cached_registry_proto", None)
    if cached is not None and not cached.version_id:
        cached.version_id = str(uuid4())
    return FeastRequestContext(utils._get_cached_request_context(registry, project, features, full_feature_names))


def get_online_store(store: FeatureStore) -> Any:
    """Return the online store object of a feature store; None if its provider has none."""
    return getattr(store._get_provider(), "online_store", None)
