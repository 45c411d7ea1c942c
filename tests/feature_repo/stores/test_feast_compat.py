"""What feature_repo/stores/feast_compat.py relies on is there in the installed Feast: an upgrade fails here first."""

import ast
import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore, RepoConfig, utils
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.online_stores.online_store import OnlineStore
from feast.value_type import ValueType

from feature_repo.stores import feast_compat
from tests.feature_repo.stores.online import feast_world

STORES = Path(__file__).parents[3] / "feature_repo" / "stores"
RELIED_ON: list[tuple[Callable[..., Any], list[str]]] = [
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
    (FeatureStore._get_provider, ["self"]),  # by tests and benchmarks, to reach the online store
]


@pytest.mark.parametrize(("called", "parameters"), RELIED_ON, ids=lambda one: getattr(one, "__qualname__", ""))
def test_what_we_call_and_override_takes_what_we_hand_it(called: Callable[..., Any], parameters: list[str]) -> None:
    assert list(inspect.signature(called).parameters) == parameters


def test_feast_still_calls_what_we_override() -> None:
    assert "self._materialize_one(registry, task" in inspect.getsource(feast_compat.LocalComputeEngine.materialize)
    assert "self._to_arrow_internal(" in inspect.getsource(RetrievalJob.to_arrow)
    assert "self._is_versioned_read_supported()" in inspect.getsource(OnlineStore._check_versioned_read_support)


def test_the_constants_are_what_tables_in_use_have_been_written_with() -> None:
    assert (feast_compat.DUMMY_ENTITY_ID, feast_compat.DUMMY_ENTITY_VAL) == ("__dummy_id", "")
    assert feast_compat.EVENT_TIMESTAMP == "event_timestamp"
    assert {"SUCCEEDED", "ERROR"} <= set(feast_compat.MaterializationJobStatus.__members__)


def test_a_reference_is_read_as_view_version_and_feature() -> None:
    assert feast_compat.parse_feature_ref("looks@v2:colour") == ("looks", 2, "colour")
    assert feast_compat.parse_feature_ref("looks:colour") == ("looks", None, "colour")


def test_a_view_that_feast_keeps_versions_of_has_its_version_in_its_name() -> None:
    looks = copy.copy(feast_world.looks)
    looks.current_version_number = 3
    assert feast_compat.compute_versioned_name(looks, True) == "looks_v3"
    assert feast_compat.compute_versioned_name(looks, False) == "looks"


def test_a_request_is_resolved_once_and_says_which_features_of_which_views_by_which_keys(tmp_path: Path) -> None:
    online = {"type": "feature_repo.stores.online.LMDBOnlineStore", "path": str(tmp_path / "online")}
    with feast_world.project(tmp_path / "repo", online) as store:

        def ask(*features: str) -> feast_compat.RequestContext:
            return feast_compat.request_context(store.registry, "shop", list(features), False)

        asked = ask("looks:colour", "taste:age")
        assert [(view.name, names) for view, names in asked.views] == [("looks", ["colour"]), ("taste", ["age"])]
        assert asked.join_keys - {feast_compat.DUMMY_ENTITY_ID} == {"product_id", "user_id"}
        assert (asked.join_key_of_entity["product"], asked.join_key_of_entity["user"]) == ("product_id", "user_id")
        assert (asked.types["product_id"], asked.types["user_id"]) == (ValueType.STRING, ValueType.INT64)
        assert not asked.asks_on_demand_views
        assert ask("attention:clicks_by_position").asks_on_demand_views
        assert ask("looks:colour", "taste:age").feasts_own is asked.feasts_own
        store.refresh_registry()
        assert ask("looks:colour", "taste:age").feasts_own is not asked.feasts_own


def test_a_path_that_a_configuration_s_registry_is_given_stays() -> None:
    config = RepoConfig(project="shop", provider="local", registry="data/registry.db", repo_path=Path())
    config.registry.path = "/elsewhere/registry.db"
    assert config.registry.path == "/elsewhere/registry.db"


def test_nothing_else_of_the_stores_reaches_into_feast() -> None:
    """Underscored names, and the modules that the seam exists for."""
    seam = imported_from_feast(STORES / "feast_compat.py")
    own = {module for module, _ in seam} - {"feast", "feast.value_type", "feast.infra.registry.base_registry"}
    reached = [
        f"{file.relative_to(STORES)}: from {module} import {name}"
        for file in STORES.rglob("*.py")
        if file.name != "feast_compat.py"
        for module, name in imported_from_feast(file)
        if module in own or name.startswith("_") or (module, name) == ("feast", "utils")
    ]
    assert not reached
    assert own


def imported_from_feast(file: Path) -> set[tuple[str, str]]:
    return {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "feast"
        for alias in node.names
    }
