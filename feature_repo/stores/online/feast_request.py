"""Plans a call of `get_online_features`: Feast resolves the features, `online/request_plan.py` plans what is read.

A plan is made once for a set of features and kept until the registry or the store's catalog changes.
"""

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any
from uuid import UUID

import numpy as np
from feast import FeatureService
from feast.infra.registry.base_registry import BaseRegistry
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.repo_config import RepoConfig
from feast.value_type import ValueType

from feature_repo.errors import EncoderMismatchError, InvalidInputError
from feature_repo.online.catalog import ProjectCatalog
from feature_repo.online.decode import DecodedRows, Status
from feature_repo.online.request_plan import PlannedRequest, RequestPlan, ViewPlan, keep_plan
from feature_repo.online.store_catalog import StoreCatalog
from feature_repo.online.table import OnlineTable
from feature_repo.stores.feast_compat import FeastRequestContext, request_context, track_feature_statuses
from feature_repo.stores.online import views
from feature_repo.stores.online.response import ColumnarResponse, FeastViewRows, RequestColumn

EntityRows = Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""Feast's entity rows: a list of rows, each with a value for each column, or lists of values by column name."""


@dataclass(frozen=True)
class FeastPlan:
    """What a `get_online_features` call reads for one set of features, whatever its entities."""

    context: FeastRequestContext
    """Feast's resolution of the features. Feast makes a new one when the registry has changed."""
    plan: RequestPlan
    """The views, fields and join keys to read."""
    versions: tuple[tuple[str, int], ...]
    """Feast's name and version number of each of the plan's views, in their order; 0 for a view without versions."""

    def bind(self, entity_rows: EntityRows) -> "FeastRequest":
        """Return the request for some entities.

        Args:
            entity_rows: the entities; columns that are not join keys are ignored. The response has their rows in their
                order, repeats included.

        Raises:
            KeyError: a view's join key is not among the columns, as Feast raises it.
            ValueError: the rows have different columns, or the columns different lengths.
            InvalidInputError: an id is missing or does not fit the type of its join key.
            IndexError: the rows are an empty list.
        """
        columns = _to_columns(entity_rows)
        count = len(next(iter(columns.values()), []))
        context = self.context
        ids = _join_key_columns(columns, self.plan.join_keys, context.join_key_of_entity, context.types)
        for view in self.plan.views:
            missing = [name for name in view.join_keys if name not in ids]
            if missing:
                raise KeyError(f"Missing join key values for keys: {missing}. Provided: {list(columns)}")
        return FeastRequest(self, PlannedRequest(self.plan, count, ids, {}))


@dataclass(frozen=True)
class FeastRequest:
    """A plan with the entities of one call."""

    plan: FeastPlan
    """What is read for any entities."""
    request: PlannedRequest
    """The keys of these entities."""

    def build_response(self, rows: Sequence[DecodedRows], include_versions: bool) -> ColumnarResponse:
        """Return the response, and count the features' statuses for Feast's metrics.

        Args:
            rows: what was read for each of `request.view_requests()`, in their order.
            include_versions: whether the protobuf form says which version of each view was read.
        """
        count = self.request.count
        parts = [
            FeastViewRows(self.request.view_rows(i, decoded), name, version)
            for i, (decoded, (name, version)) in enumerate(zip(rows, self.plan.versions, strict=True))
        ]
        for part in parts:
            features = len(part.rows.names)
            present = sum(int((part.rows.feature_status(name) == Status.PRESENT).sum()) for name in part.rows.names)
            track_feature_statuses(part.view, present, count * features - present)
        types = self.plan.context.types
        columns = {
            name: RequestColumn(ids, types.get(name, ValueType.UNKNOWN)) for name, ids in self.request.ids.items()
        }
        return ColumnarResponse(columns, parts, count, include_versions)


def convert_entity_rows(
    entity_rows: EntityRows,
    features: list[str] | FeatureService,
    registry: BaseRegistry,
    project: str,
    full_feature_names: bool,
) -> dict[str, list[Any]]:
    """Return entity rows for Feast's own call, as columns, with ids converted as `FeastPlan.bind` converts them.

    Feast writes bytes as the text "b'...'" and None as "None", and then finds no row.

    Args:
        entity_rows: the entities. Columns that are not join keys, such as request data, stay as they are.
        features: references `view:feature`, or a feature service.
        registry: has the views.
        project: the project's name in the registry.
        full_feature_names: whether features are called view__feature.

    Raises:
        ValueError: the rows have different columns, or the columns different lengths.
        InvalidInputError: an id is missing or does not fit the type of its join key.
    """
    context = request_context(registry, project, features, full_feature_names)
    columns, join_keys = _to_columns(entity_rows), context.join_keys
    return {
        name: _convert(name, values, context.types.get(name, ValueType.UNKNOWN)) if name in join_keys else values
        for name, values in columns.items()
    }


class OneVersion:
    """Notes whether the encoder version in production stays the same during a `with` statement.

    If it does not, an EncoderMismatchError that the statement raises is dropped: both versions were read.

    Args:
        catalog: the project's catalog, which others may read again meanwhile.
    """

    def __init__(self, catalog: StoreCatalog) -> None:
        self._catalog = catalog
        self.is_kept = False
        """Whether the version has stayed the same; False until the statement has ended."""

    def __enter__(self) -> "OneVersion":
        self._version = self._catalog.load().production_version
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self.is_kept = self._catalog.load().production_version == self._version
        return kind is not None and issubclass(kind, EncoderMismatchError) and not self.is_kept


class FeastPlanCache:
    """The plans made so far, at most `request_plan.MAX_PLANS`. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[int, FeastPlan] = {}

    def get(
        self,
        online: OnlineTable,
        config: RepoConfig,
        features: list[str] | FeatureService,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool,
    ) -> FeastPlan | None:
        """Return the plan of these features, None if on-demand views are among them.

        The plan is made again when the registry has changed or the store's catalog has been read again.

        Args:
            online: the project's rows.
            config: the deployment.
            features: references `view:feature`, or a feature service.
            registry: has the views.
            project: the project's name in the registry.
            full_feature_names: whether features are called view__feature.
        """
        context = request_context(registry, project, features, full_feature_names)
        if context.asks_on_demand_views:
            return None
        known = self._plans.get(id(context.feasts_own))
        catalog = online.catalog.load()
        if known is not None and known.context.feasts_own is context.feasts_own and known.plan.catalog is catalog:
            return known
        plan = _make_plan(online, config, context, full_feature_names)
        with self._lock:
            keep_plan(self._plans, id(context.feasts_own), plan)
        return plan


def _make_plan(
    online: OnlineTable, config: RepoConfig, context: FeastRequestContext, full_feature_names: bool
) -> FeastPlan:
    """Return the plan of the views that Feast resolved, in Feast's order."""
    catalog = online.catalog.load()
    if any(catalog.find_view(views.stored_name(config, table)) is None for table, _ in context.views):
        catalog = online.catalog.reload()
    plans, versions = [], []
    for table, features in context.views:
        projection = table.projection
        plans.append(_plan_view(online.project, catalog, config, table, features, full_feature_names))
        version = getattr(table, "current_version_number", 0) or 0
        versions.append((projection.name_alias or projection.name, version))
    names = frozenset(name for plan in plans for name in plan.names)
    join_keys = tuple(sorted(context.join_keys))
    plan = RequestPlan(catalog, "get_online_features", tuple(plans), (), join_keys, names)
    return FeastPlan(context, plan, tuple(versions))


def _plan_view(
    project: str,
    catalog: ProjectCatalog,
    config: RepoConfig,
    table: Any,
    features: Sequence[str],
    full_feature_names: bool,
) -> ViewPlan:
    """Return what is read from one view; the layouts of its rows are those that the store has."""
    view = views.stored_view(config, table)
    projection, fields = table.projection, [view.layout.fields_by_name[feature] for feature in features]
    stored = catalog.find_view(view.name) or replace(view, layouts=())
    name, renamed_keys = projection.name_to_use(), projection.join_key_map
    return ViewPlan.build(project, name, stored, fields, renamed_keys, full_feature_names)


def _to_columns(entity_rows: EntityRows) -> dict[str, list[Any]]:
    """Return entity rows as columns; raise as Feast does if they do not fit together."""
    if isinstance(entity_rows, Mapping):
        columns = {
            name: list(values.val) if isinstance(values, RepeatedValue) else list(values)
            for name, values in entity_rows.items()
        }
    else:
        names = entity_rows[0].keys()
        if any(row.keys() != names for row in entity_rows):
            raise ValueError("All entity_rows must have the same keys.")
        columns = {name: [row[name] for row in entity_rows] for name in names}
    if len({len(values) for values in columns.values()}) > 1:
        raise ValueError("All entity rows must have the same columns.")
    return columns


def _join_key_columns(
    columns: Mapping[str, list[Any]],
    join_keys: Sequence[str],
    join_key_of_entity: Mapping[str, str],
    types: Mapping[str, ValueType],
) -> dict[str, list[Any]]:
    """Return the columns that are join keys, converted to the types of their entities.

    A column named like an entity counts as the entity's join key; Feast has deprecated that, and so this warns.
    """
    result: dict[str, list[Any]] = {}
    for name, values in columns.items():
        key = name
        if name not in join_keys:
            if name not in join_key_of_entity:
                continue
            key = join_key_of_entity[name]
            warnings.warn("Using entity name is deprecated. Use join_key instead.", stacklevel=4)
        result[key] = _convert(key, values, types.get(key, ValueType.UNKNOWN))
    return result


def _convert(key: str, values: list[Any], type_: ValueType) -> list[Any]:
    """Return ids as integers, texts or seconds since 1970 UTC, by the join key's type; of other types as they are."""
    if any(isinstance(value, Value) for value in values):
        values = [getattr(value, value.WhichOneof("val") or "null_val") for value in values]
    convert = _CONVERSIONS.get(type_)
    if convert is None:
        return values
    try:
        return list(map(convert, values))
    except (TypeError, ValueError, OverflowError):
        wrong = next(value for value in values if not _is_convertible(convert, value))
        raise InvalidInputError(
            f"join key `{key}` is {type_.name.lower()}, and an id is {wrong!r:.80}; expected {_EXPECTED[type_]}"
        ) from None


def _to_text(value: Any) -> str:
    """Return an id as text: bytes as UTF-8, a whole number by its digits; raise ValueError for what is no id."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Real) and not isinstance(value, bool):
        return str(_to_integer(value))
    if isinstance(value, UUID):
        return str(value)
    raise ValueError


def _to_integer(value: Any) -> int:
    """Return an id as integer, also from a whole float, text or bytes; raise an error for what is no whole number."""
    if isinstance(value, bool | np.bool_):
        raise ValueError
    number = int(value)
    if isinstance(value, Real) and number != value:
        raise ValueError
    return number


def _to_seconds(value: Any) -> int:
    """Return a time as whole seconds since 1970 UTC; raise an error for a missing one."""
    return int(value.timestamp()) if hasattr(value, "timestamp") else _to_integer(value)


def _is_convertible(convert: Callable[[Any], Any], value: Any) -> bool:
    try:
        convert(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


_CONVERSIONS: Mapping[ValueType, Callable[[Any], Any]] = {
    ValueType.INT32: _to_integer,
    ValueType.INT64: _to_integer,
    ValueType.STRING: _to_text,
    ValueType.UNIX_TIMESTAMP: _to_seconds,
}
_EXPECTED = {
    ValueType.INT32: "a whole number",
    ValueType.INT64: "a whole number",
    ValueType.STRING: "text, UTF-8 bytes or a whole number",
    ValueType.UNIX_TIMESTAMP: "a datetime, or whole seconds since 1970 UTC",
}
