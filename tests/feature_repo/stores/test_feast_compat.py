"""The installed Feast has everything that feature_repo/stores/feast_compat.py uses. An upgrade fails here first."""

import ast
import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore, FeatureView, Field, RepoConfig, utils
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.online_stores.online_store import OnlineStore
from feast.types import String
from feast.value_type import ValueType

from feature_repo.stores import feast_compat
from tests.feature_repo.stores.online import feast_world

STORES = Path(__file__).parents[3] / "feature_repo" / "stores"
SIGNATURES: list[tuple[Callable[..., Any], list[str]]] = [
    (utils._get_cached_request_context, ["registry", "project", "features", "full_feature_names"]),
    (utils._parse_feature_ref, ["ref"]),
    (feast_compat.compute_versioned_name, ["table", "enable_versioning"]),
    (
        feast_compat.compute_non_entity_date_range,
        ["feature_views", "start_date", "end_date", "default_window_days"],
    ),
    (feast_compat.has_transformation, ["feature_view"]),
    (feast_compat.track_feature_statuses, ["feature_view_name", "present_count", "not_found_count"]),
    (feast_compat.LocalComputeEngine._materialize_one, ["self", "registry", "task", "kwargs"]),
    (feast_compat.LocalMaterializationJob, ["job_id", "status", "error"]),
    (
        feast_compat.MaterializationTask,
        [
            "project",
            "feature_view",
            "start_time",
            "end_time",
            "only_latest",
            "tqdm_builder",
            "disable_event_timestamp",
        ],
    ),
    (RetrievalJob._to_arrow_internal, ["self", "timeout"]),
    (RetrievalJob._to_df_internal, ["self", "timeout"]),
    (OnlineStore._is_versioned_read_supported, ["self"]),
    (FeatureStore._get_provider, ["self"]),  # used by tests and benchmarks
]


@pytest.mark.parametrize(("function", "parameters"), SIGNATURES, ids=lambda one: getattr(one, "__qualname__", ""))
def test_functions_of_feast_have_the_expected_parameters(function: Callable[..., Any], parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == parameters


def test_feast_calls_the_methods_that_we_override() -> None:
    assert "self._materialize_one(registry, task" in inspect.getsource(feast_compat.LocalComputeEngine.materialize)
    assert "self._to_arrow_internal(" in inspect.getsource(RetrievalJob.to_arrow)
    assert "self._is_versioned_read_supported()" in inspect.getsource(OnlineStore._check_versioned_read_support)


def test_the_constants_are_those_in_existing_tables() -> None:
    assert (feast_compat.DUMMY_ENTITY_ID, feast_compat.DUMMY_ENTITY_VAL) == ("__dummy_id", "")
    assert feast_compat.EVENT_TIMESTAMP == "event_timestamp"
    assert {"SUCCEEDED", "ERROR"} <= set(feast_compat.MaterializationJobStatus.__members__)


def test_a_feature_reference_is_split_into_view_version_and_feature() -> None:
    assert feast_compat.parse_feature_ref("looks@v2:colour") == ("looks", 2, "colour")
    assert feast_compat.parse_feature_ref("looks:colour") == ("looks", None, "colour")


def test_the_name_of_a_versioned_view_includes_its_version() -> None:
    looks = copy.copy(feast_world.looks)
    looks.current_version_number = 3
    assert feast_compat.compute_versioned_name(looks, True) == "looks_v3"
    assert feast_compat.compute_versioned_name(looks, False) == "looks"


def test_a_request_is_resolved_once_to_views_features_and_join_keys(tmp_path: Path) -> None:
    online = {"type": "feature_repo.stores.online.LMDBOnlineStore", "path": str(tmp_path / "online")}
    with feast_world.project(tmp_path / "repo", online) as store:

        def resolve(*features: str) -> feast_compat.FeastRequestContext:
            return feast_compat.request_context(store.registry, "shop", list(features), False)

        context = resolve("looks:colour", "taste:age")
        assert [(view.name, names) for view, names in context.views] == [("looks", ["colour"]), ("taste", ["age"])]
        assert context.join_keys - {feast_compat.DUMMY_ENTITY_ID} == {"product_id", "user_id"}
        assert (context.join_key_of_entity["product"], context.join_key_of_entity["user"]) == ("product_id", "user_id")
        assert (context.types["product_id"], context.types["user_id"]) == (ValueType.STRING, ValueType.INT64)
        assert not context.asks_on_demand_views
        assert resolve("attention:clicks_by_position").asks_on_demand_views
        assert resolve("looks:colour", "taste:age").feasts_own is context.feasts_own
        store.refresh_registry()
        assert resolve("looks:colour", "taste:age").feasts_own is not context.feasts_own


def test_a_changed_view_is_resolved_though_the_registry_is_at_the_address_of_an_earlier_one(tmp_path: Path) -> None:
    online = {"type": "feature_repo.stores.online.LMDBOnlineStore", "path": str(tmp_path / "online")}
    with feast_world.project(tmp_path / "repo", online) as store:
        registry, looks = store.registry, store.get_feature_view("looks")
        schema = [*looks.features, Field(name="brand", dtype=String)]
        changed = FeatureView(name="looks", entities=[feast_world.product], schema=schema, source=looks.batch_source)
        addresses = [read_registry(registry) for _ in range(10)]  # from here on Python uses two addresses in turn
        feast_compat.request_context(registry, "shop", ["looks:title"], False)
        version = registry.cached_registry_proto.version_id
        registry.apply_feature_view(changed, "shop")
        while read_registry(registry) != addresses[-1] and len(addresses) < 100:
            addresses.append(0)
        context = feast_compat.request_context(registry, "shop", ["looks:brand"], False)
        assert [(view.name, names) for view, names in context.views] == [("looks", ["brand"])]
        assert registry.cached_registry_proto.version_id != version


def read_registry(registry: Any) -> int:
    """Read the registry again; return where in memory it is."""
    registry.refresh("shop")
    return id(registry.cached_registry_proto)


def test_feast_keeps_one_registry_configuration_and_reads_it_by_a_property() -> None:
    config = RepoConfig(project="shop", provider="local", registry="data/registry.db", repo_path=Path())
    config.registry.path = "/elsewhere/registry.db"
    assert config.registry.path == "/elsewhere/registry.db"
    assert isinstance(RepoConfig.registry, property)


def test_only_feast_compat_uses_private_parts_of_feast() -> None:
    """No other module of the stores imports private names, or modules that feast_compat imports."""
    compat = imported_from_feast(STORES / "feast_compat.py")
    own = {module for module, _ in compat} - {"feast", "feast.value_type", "feast.infra.registry.base_registry"}
    violations = [
        f"{file.relative_to(STORES)}: from {module} import {name}"
        for file in STORES.rglob("*.py")
        if file.name != "feast_compat.py"
        for module, name in imported_from_feast(file)
        if module in own or name.startswith("_") or (module, name) == ("feast", "utils")
    ]
    assert not violations
    assert own


def imported_from_feast(file: Path) -> set[tuple[str, str]]:
    return {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "feast"
        for alias in node.names
    }
