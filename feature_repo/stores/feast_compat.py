"""What we lean on in Feast 0.67 beyond its documented plug-in points: the one place to look at before an upgrade.

Called, and so imported here and nowhere else:

    request_context              what a call asks of which views, resolved and cached by Feast, which also knows when
                                 the registry has changed. To resolve it ourselves takes longer than to read the rows
    parse_feature_ref            `view@v2:feature`, as Feast reads it
    compute_versioned_name       what a view is called online where Feast keeps versions of views
    compute_non_entity_date_range  which dates a training set without entity rows has
    has_transformation           views that are computed on the way, and so left to Feast's own engine
    track_feature_statuses       the counters of Feast's feature server
    LocalComputeEngine and its jobs  what our batch engine hands on, and what it answers with
    DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL  the join key of a view without entities
    EVENT_TIMESTAMP              the column that is the time of an entity row, unless it is the only one of timestamps

Overridden or written to, each where it belongs:

    LocalComputeEngine._materialize_one  engine.py: Feast's own does the rest of `materialize` (registry, watermark)
    RetrievalJob._to_arrow_internal, ._to_df_internal  retrieval.py: abstract, yet underscored
    OnlineStore._is_versioned_read_supported  online/packed.py: without it `view@v2` is refused
    RepoConfig.registry.path     opening.py: made absolute, for Feast takes it from the working directory. That works
                                 because `RepoConfig.registry` is made once and kept

tests/feature_repo/stores/test_feast_compat.py holds each of them to the name and the signature that we rely on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feast import FeatureService, utils
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.feature_view_utils import has_transformation
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.offline_stores.offline_utils import DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL as EVENT_TIMESTAMP
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.registry.base_registry import BaseRegistry
from feast.metrics import track_feature_statuses
from feast.utils import compute_non_entity_date_range
from feast.value_type import ValueType

__all__ = [
    "DUMMY_ENTITY_ID",
    "DUMMY_ENTITY_VAL",
    "EVENT_TIMESTAMP",
    "LocalComputeEngine",
    "LocalMaterializationJob",
    "MaterializationJobStatus",
    "MaterializationTask",
    "RequestContext",
    "compute_non_entity_date_range",
    "compute_versioned_name",
    "has_transformation",
    "parse_feature_ref",
    "request_context",
    "track_feature_statuses",
]


@dataclass(frozen=True)
class RequestContext:
    """What a call of `get_online_features` asks of which views."""

    feasts_own: tuple[Any, ...]
    """As Feast caches it: the same object for as long as the registry has not changed."""

    @property
    def asks_on_demand_views(self) -> bool:
        return bool(self.feasts_own[1])

    @property
    def join_key_of_entity(self) -> Mapping[str, str]:
        """The join key of each entity, by the entity's name."""
        return self.feasts_own[2]

    @property
    def types(self) -> Mapping[str, ValueType]:
        """Of the join keys."""
        return self.feasts_own[3]

    @property
    def join_keys(self) -> frozenset[str]:
        return frozenset(self.feasts_own[4])

    @property
    def views(self) -> Sequence[tuple[Any, list[str]]]:
        """Each view, whatever its kind, and the names of the features asked of it."""
        return self.feasts_own[5]


def request_context(
    registry: BaseRegistry, project: str, features: list[str] | FeatureService, full_feature_names: bool
) -> RequestContext:
    """Features as Feast resolves them."""
    return RequestContext(utils._get_cached_request_context(registry, project, features, full_feature_names))


def parse_feature_ref(reference: str) -> tuple[str, int | None, str]:
    """View, version (None for the latest) and feature."""
    return utils._parse_feature_ref(reference)
