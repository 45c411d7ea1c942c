"""Plans the views and rows that a fetch reads: once for a set of features, then for any entities.

A `RequestPlan` names the views, fields and join keys. `RequestPlan.bind` adds the entities: the `PlannedRequest` makes
the keys, each distinct entity once, and assigns the rows that were read to the rows of the request. `OnlineReader` and
Feast's `get_online_features` both plan here; nothing in this module needs Feast.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.field import Field
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.online import entity_keys
from feature_repo.online.catalog import ProjectCatalog, ServiceView, View
from feature_repo.online.decode import DecodedRows
from feature_repo.online.feature_batch import FeatureBatch, ViewRows
from feature_repo.online.store_catalog import missing_view
from feature_repo.online.table import OnlineTable, ViewRequest

if TYPE_CHECKING:
    import torch

MAX_PLANS = 256
"""Number of plans that a reader or a store of Feast keeps."""

Key = TypeVar("Key")
Plan = TypeVar("Plan")
Ids = Sequence[Any] | Mapping[str, Any]
"""The id of each row, or a mapping from join key to the ids of the rows or to one id for all rows."""


@dataclass(frozen=True)
class ViewPlan:
    """What a plan reads from one view."""

    name: str
    """The view's name in the service."""
    view: View
    """The view as the store has it."""
    fields: tuple[Field, ...]
    """The fields to read, in the order of the request."""
    names: Mapping[str, str]
    """Name in the result (view__feature, if full names were asked for) -> the view's own name of the feature."""
    prefix: bytes
    """The bytes that the keys of the view's rows start with."""
    join_keys: tuple[str, ...]
    """The request's name of each join key, sorted by the view's own names."""

    @staticmethod
    def build(
        project: str,
        name: str,
        view: View,
        fields: Sequence[Field],
        renamed_keys: Mapping[str, str],
        full_feature_names: bool,
    ) -> "ViewPlan":
        """Plan what is read from one view.

        Args:
            project: the project's name in the store.
            name: the view's name in the service.
            view: the view as the store has it.
            fields: the fields to read, in the order of the request.
            renamed_keys: the view's name of a join key -> the request's name; join keys that are not in it keep theirs.
            full_feature_names: whether features are called view__feature.
        """
        prefix = f"{name}__" if full_feature_names else ""
        return ViewPlan(
            name=name,
            view=view,
            fields=tuple(fields),
            names={prefix + field.name: field.name for field in fields},
            prefix=entity_keys.make_prefix(project, view.name),
            join_keys=tuple(renamed_keys.get(key, key) for key, _ in view.join_keys),
        )


@dataclass(frozen=True)
class RequestPlan:
    """The views, fields and join keys of a set of features."""

    catalog: ProjectCatalog
    """The catalog that the plan was made from. The plan is outdated when the store's catalog is another object."""
    name: str
    """The name of the service or view, for error messages."""
    views: tuple[ViewPlan, ...]
    """What is read from each view, in the order of the service."""
    on_demand: tuple[str, ...]
    """Names of the service's on-demand views. The store does not hold them."""
    join_keys: tuple[str, ...]
    """The names that the request has for the join keys of all views, sorted, each once."""
    features: frozenset[str]
    """The features' names in the result."""

    @staticmethod
    def build(
        table: OnlineTable,
        catalog: ProjectCatalog,
        name: str,
        service_views: Sequence[ServiceView],
        on_demand: tuple[str, ...],
        full_feature_names: bool,
    ) -> "RequestPlan":
        """Plan a feature service, or one view.

        Args:
            table: the project's rows.
            catalog: the project's catalog as last read.
            name: the service or view, for error messages.
            service_views: what is read from each view; the plan's views are in this order.
            on_demand: names of the service's on-demand views.
            full_feature_names: whether features are called view__feature, as in Feast.

        Raises:
            NotFoundError: the store no longer has a view, or a view no longer has a feature.
            InvalidInputError: two features have the same name in the result.
        """
        views = tuple(
            _plan_view(table.project, catalog, name, service_view, full_feature_names) for service_view in service_views
        )
        names = [feature for view in views for feature in view.names]
        duplicates = {feature for feature in names if names.count(feature) > 1}
        if duplicates:
            raise InvalidInputError(
                f"service `{name}` has several features called {', '.join(sorted(duplicates))}; "
                f"fetch it with full_feature_names=True"
            )
        join_keys = {key for view in views for key in view.join_keys}
        return RequestPlan(catalog, name, views, on_demand, tuple(sorted(join_keys)), frozenset(names))

    @cached_property
    def read_order(self) -> list[int]:
        """Indices of `views` in the order in which to read them: those with the fewest list features first.

        Rows with lists are long. They travel while the rows of the other views are decoded.
        """
        lists = [sum(field.is_list for field in view.view.layout.fields) for view in self.views]
        return sorted(range(len(lists)), key=lists.__getitem__)

    def bind(self, ids: Ids, out: "Mapping[str, NDArray[Any] | torch.Tensor]") -> "PlannedRequest":
        """Return the request for some entities. Its rows are in the order of the ids; a repeated id is read once.

        Args:
            ids: the id of each row, or a mapping from join key to the ids of the rows or to one id for all rows. A
                mapping may have more join keys than the plan needs. No ids give a request of 0 rows, a mapping of
                single ids only one of 1 row.
            out: for some float features, the array [n] or [n, width] or CPU tensor that receives the values. Whether it
                fits is checked when the rows have been read.

        Raises:
            NotFoundError: `out` names a feature that the plan does not have.
            InvalidInputError: a join key has no ids, the ids differ in number, or `ids` is a single id, or no mapping
                although the plan has several join keys.
        """
        arrays = {feature: np.asarray(target) for feature, target in out.items()}
        if not arrays.keys() <= self.features:
            unknown = ", ".join(sorted(arrays.keys() - self.features))
            raise NotFoundError(f"out: `{self.name}` has no feature {unknown}")
        id_columns, count = _id_columns(self.name, self.join_keys, ids)
        return PlannedRequest(self, count, id_columns, arrays)


def _plan_view(
    project: str, catalog: ProjectCatalog, name: str, service_view: ServiceView, full_feature_names: bool
) -> ViewPlan:
    """Return what is read from one view; raise NotFoundError if the store lacks the view or one of its features."""
    view = catalog.find_view(service_view.view)
    if view is None:
        raise missing_view(service_view.view, project, catalog)
    missing = [feature for feature in service_view.features if feature not in view.layout.fields_by_name]
    if missing:
        raise NotFoundError(f"`{name}`: view `{view.name}` no longer has {', '.join(missing)}; run `feast apply` again")
    fields = [view.layout.fields_by_name[feature] for feature in service_view.features]
    renamed_keys = dict(service_view.join_keys)
    return ViewPlan.build(project, service_view.name, view, fields, renamed_keys, full_feature_names)


def keep_plan(plans: dict[Key, Plan], key: Key, plan: Plan) -> None:
    """Put a plan into a dictionary of plans. If that has MAX_PLANS already, they are discarded first."""
    if len(plans) >= MAX_PLANS:
        plans.clear()
    plans[key] = plan


@dataclass(frozen=True)
class PlannedRequest:
    """A plan with entities.

    Keys are made when a view's request is, so that the store already works on the first view meanwhile.
    """

    plan: RequestPlan
    count: int
    """Rows of the request."""
    ids: Mapping[str, Sequence[Any]]
    """The ids of each join key, by the request's name of it: one for each row, or a single one for all rows."""
    out: Mapping[str, NDArray[Any]]
    """For some features, by name in the result, the array that receives the values."""
    _entities: dict[tuple[str, ...], "_Entities"] = field(default_factory=dict)
    """The entities by join keys. Views with the same join keys share them."""

    def view_requests(self) -> list[ViewRequest]:
        """Return the keys and fields to read from each view, in the order of `plan.views`.

        Raises:
            InvalidInputError: an id is missing, or is not text, bytes or an integer.
        """
        return [self.view_request(i) for i in range(len(self.plan.views))]

    def view_request(self, index: int) -> ViewRequest:
        """Return the keys and fields to read from one view; the keys are of distinct entities.

        Args:
            index: index of the view in `plan.views`.

        Raises:
            InvalidInputError: an id is missing, or is not text, bytes or an integer.
        """
        view = self.plan.views[index]
        entities = self._entities.get(view.join_keys)
        if entities is None:
            ids = [self.ids[key] for key in view.join_keys] or [[""]]
            keys, entities = _make_entities(ids, self.count, view.prefix)
            self._entities[view.join_keys] = entities
        else:
            keys = entity_keys.make_keys(view.prefix, entities.ids)
        is_direct = entities.row_index is None
        targets = {name: self.out[shown] for shown, name in view.names.items() if shown in self.out and is_direct}
        return ViewRequest(view.view, view.fields, keys, targets)

    def view_rows(self, index: int, rows: DecodedRows) -> ViewRows:
        """Return the rows read for `view_request(index)`, assigned to the rows of the request.

        Args:
            index: index of the view in `plan.views`; `view_request` must have been called for it.
            rows: the row of each key of that request, in their order.
        """
        view = self.plan.views[index]
        return ViewRows(rows, self._entities[view.join_keys].row_index, view.names)

    def build_batch(self, rows: Sequence[DecodedRows]) -> FeatureBatch:
        """Return the result, and write the values of the features in `out` to their arrays.

        Args:
            rows: what was read for each view, in the order of `plan.views`.

        Raises:
            InvalidInputError: an array of `out` does not fit its feature.
        """
        views = {
            view.name: self.view_rows(i, decoded)
            for i, (view, decoded) in enumerate(zip(self.plan.views, rows, strict=True))
        }
        for view in views.values() if self.out else ():
            for shown in view.names.keys() & self.out.keys() if view.row_index is not None else ():
                column = view.column(shown)
                values = view.expand(np.asarray(column.values))
                columns.copy_into(replace(column, values=values, valid=None), self.out[shown])
        return FeatureBatch(self.count, views, self.plan.on_demand)


@dataclass(frozen=True)
class _Entities:
    """The distinct entities of a request."""

    ids: Sequence[Sequence[Any]]
    """The entities' ids of each join key."""
    row_index: NDArray[np.int64] | None
    """[rows of the request], the index of each row's entity; None if row i has entity i."""


def _make_entities(ids: Sequence[Sequence[Any]], count: int, prefix: bytes) -> tuple[list[bytes], _Entities]:
    """Return the keys of the distinct entities in one view, and the entities."""
    if count > 1 and all(len(column) == 1 for column in ids):  # one user beside many candidates
        return entity_keys.make_keys(prefix, ids), _Entities(ids, np.zeros(count, np.int64))
    ids = [list(column) * count if len(column) != count else column for column in ids]
    keys = entity_keys.make_keys(prefix, ids)
    if len(set(keys)) == len(keys):
        return keys, _Entities(ids, None)
    indices = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    row_index = np.array([indices[key] for key in keys], np.int64)
    first_rows = np.unique(row_index, return_index=True)[1].tolist()
    return list(indices), _Entities([[column[i] for i in first_rows] for column in ids], row_index)


def _id_columns(name: str, join_keys: Sequence[str], ids: Ids) -> tuple[dict[str, Sequence[Any]], int]:
    """Return the ids of each join key, one where it holds for all rows, and the number of rows."""
    if not isinstance(ids, Mapping):
        if _is_single(ids):
            raise InvalidInputError(f"`{name}`: ids is {ids!r:.80}, a single id; expected a sequence: [{ids!r:.80}]")
        if len(join_keys) > 1:
            raise InvalidInputError(
                f"`{name}` needs {', '.join(join_keys)}; expected ids as a mapping from join key to ids"
            )
        return {key: _to_list(ids) for key in join_keys}, len(ids)
    missing = [key for key in join_keys if key not in ids]
    if missing:
        raise InvalidInputError(f"`{name}` needs {', '.join(join_keys)}; ids has no {', '.join(missing)}")
    counts = {len(column) for column in ids.values() if not _is_single(column)}
    if len(counts) > 1:
        raise InvalidInputError(
            f"`{name}`: the join keys have different numbers of ids: {', '.join(map(str, sorted(counts)))}; expected "
            "as many for each, or a single id"
        )
    count = counts.pop() if counts else 1
    return {key: [ids[key]] if _is_single(ids[key]) else _to_list(ids[key]) for key in join_keys}, count


def _is_single(ids: Any) -> bool:
    """Return whether this is one id rather than a sequence of ids."""
    return isinstance(ids, str | bytes) or not hasattr(ids, "__len__")


def _to_list(ids: Any) -> list[Any]:
    """Return ids from a sequence, a NumPy or an Arrow array as a list of Python values."""
    if hasattr(ids, "to_pylist"):
        return ids.to_pylist()
    return ids.tolist() if hasattr(ids, "tolist") else list(ids)
