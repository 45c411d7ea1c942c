"""What a fetch asks of which views: worked out once for a set of features, then asked for any entities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.field import Field
from feature_repo.errors import VitrineError
from feature_repo.online import entity_keys
from feature_repo.online.catalog import ProjectCatalog, ServiceView, View
from feature_repo.online.decode import DecodedRows
from feature_repo.online.feature_batch import FeatureBatch, ViewRows
from feature_repo.online.table import OnlineTable, ViewRequest

if TYPE_CHECKING:
    import torch

Ids = Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class ViewPlan:
    """What is asked of one view."""

    name: str
    """What the view is called in the service."""
    view: View
    fields: tuple[Field, ...]
    names: Mapping[str, str]
    """The features, by their names in the block."""
    prefix: bytes
    join_keys: tuple[str, ...]
    """What the view's join keys are called in the service, in the order of the view's own names."""

    @staticmethod
    def of(table: OnlineTable, name: str, part: ServiceView, full_feature_names: bool) -> "ViewPlan":
        view, called = table.catalog.get_view(part.view), dict(part.join_keys)
        lacking = [feature for feature in part.features if feature not in view.layout.fields_by_name]
        if lacking:
            raise VitrineError(f"`{name}`: view `{view.name}` no longer has {', '.join(lacking)}; apply it anew")
        return ViewPlan(
            name=part.name,
            view=view,
            fields=tuple(view.layout.fields_by_name[feature] for feature in part.features),
            names={f"{part.name}__{one}" if full_feature_names else one: one for one in part.features},
            prefix=entity_keys.make_prefix(table.project, view.name),
            join_keys=tuple(called.get(key, key) for key, _ in view.join_keys),
        )


@dataclass(frozen=True)
class RequestPlan:
    """What is asked of which views, whichever the entities."""

    record: ProjectCatalog
    """What the store said before this was worked out."""
    name: str
    parts: tuple[ViewPlan, ...]
    on_demand: tuple[str, ...]
    join_keys: tuple[str, ...]
    features: frozenset[str]

    @cached_property
    def order(self) -> list[int]:
        """In which order the parts are best asked for: long rows, those of lists, are on their way while others are
        looked at."""
        lists = [sum(field.is_list for field in part.view.layout.fields) for part in self.parts]
        return sorted(range(len(lists)), key=lists.__getitem__)

    @staticmethod
    def of(
        table: OnlineTable,
        record: ProjectCatalog,
        name: str,
        service_parts: Sequence[ServiceView],
        on_demand: tuple[str, ...],
        full_feature_names: bool,
    ) -> "RequestPlan":
        parts = tuple(ViewPlan.of(table, name, part, full_feature_names) for part in service_parts)
        shown = [feature for part in parts for feature in part.names]
        alike = {feature for feature in shown if shown.count(feature) > 1}
        if alike:
            raise VitrineError(
                f"service `{name}` has several features called {', '.join(sorted(alike))}; "
                f"fetch it with full_feature_names=True"
            )
        join_keys = {key for part in parts for key in part.join_keys}
        return RequestPlan(record, name, parts, on_demand, tuple(sorted(join_keys)), frozenset(shown))

    def ask(self, ids: Ids, out: "Mapping[str, NDArray[Any] | torch.Tensor]") -> "PlannedRequest":
        """The question for some entities."""
        arrays = {feature: np.asarray(target) for feature, target in out.items()}
        if not arrays.keys() <= self.features:
            unknown = ", ".join(sorted(arrays.keys() - self.features))
            raise VitrineError(f"out: `{self.name}` has no feature {unknown}")
        given, count = _by_join_key(self.name, self.join_keys, ids)
        return PlannedRequest(self, count, given, arrays)


@dataclass(frozen=True)
class PlannedRequest:
    """What is asked for which entities. Keys are made view by view: the store has begun with one before the next."""

    plan: RequestPlan
    count: int
    given: Mapping[str, Sequence[Any]]
    """The ids of each join key, a single one if it holds for all rows."""
    out: Mapping[str, NDArray[Any]]
    _entities: dict[tuple[str, ...], "_Entities"] = field(default_factory=dict)
    """By join keys: views that have the same ask for the same entities."""

    def requests(self) -> list[ViewRequest]:
        """What is asked of each view."""
        return [self.request(part) for part in range(len(self.plan.parts))]

    def request(self, number: int) -> ViewRequest:
        """What is asked of one of the plan's parts."""
        part = self.plan.parts[number]
        entities = self._entities.get(part.join_keys)
        if entities is None:
            ids = [self.given[key] for key in part.join_keys] or [[""]]
            keys, entities = _Entities.of(ids, self.count, part.prefix)
            self._entities[part.join_keys] = entities
        else:
            keys = entity_keys.make_keys(part.prefix, entities.ids)
        alone = entities.place is None
        targets = {own: self.out[shown] for shown, own in part.names.items() if shown in self.out and alone}
        return ViewRequest(part.view, part.fields, keys, targets)

    def view(self, number: int, rows: DecodedRows) -> ViewRows:
        """What was read for one of the requests."""
        part = self.plan.parts[number]
        return ViewRows(rows, self._entities[part.join_keys].place, part.names)

    def answer(self, found: Sequence[DecodedRows]) -> FeatureBatch:
        """What was read for the requests."""
        views = {
            part.name: self.view(i, rows) for i, (part, rows) in enumerate(zip(self.plan.parts, found, strict=True))
        }
        for view in views.values() if self.out else ():
            for shown in view.names.keys() & self.out.keys() if view.place is not None else ():
                column = view.column(shown)
                values = view.spread(np.asarray(column.values))
                columns.copy_into(replace(column, values=values, valid=None), self.out[shown])
        return FeatureBatch(self.count, views, self.plan.on_demand)


@dataclass(frozen=True)
class _Entities:
    """The distinct entities that rows ask for."""

    ids: Sequence[Sequence[Any]]
    """Of each join key."""
    place: NDArray[np.int64] | None
    """Which of them each row asks for; None if that is its own."""

    @staticmethod
    def of(ids: Sequence[Sequence[Any]], count: int, prefix: bytes) -> "tuple[list[bytes], _Entities]":
        """The keys in one view, and the entities as every view has them."""
        if count > 1 and all(len(one) == 1 for one in ids):  # one user beside many candidates
            return entity_keys.make_keys(prefix, ids), _Entities(ids, np.zeros(count, np.int64))
        ids = [list(one) * count if len(one) != count else one for one in ids]
        keys, place = deduplicate_keys(entity_keys.make_keys(prefix, ids))
        if place is not None:
            first = np.unique(place, return_index=True)[1].tolist()
            ids = [[one[i] for i in first] for one in ids]
        return keys, _Entities(ids, place)


def deduplicate_keys(keys: list[bytes]) -> tuple[list[bytes], NDArray[np.int64] | None]:
    """The keys without repeats, and which of them each key is; None if none repeats."""
    if len(set(keys)) == len(keys):
        return keys, None
    once = list(dict.fromkeys(keys))
    place = {key: i for i, key in enumerate(once)}
    return once, np.array([place[key] for key in keys], np.int64)


def _by_join_key(name: str, wanted: Sequence[str], ids: Ids) -> tuple[dict[str, Sequence[Any]], int]:
    """The ids of each join key that is asked for, a single one if it holds for all rows; and the number of rows."""
    if not isinstance(ids, Mapping):
        if _is_one(ids):
            raise VitrineError(f"`{name}`: the ids are {ids!r:.80}, which is one; wanted a sequence, as [{ids!r:.80}]")
        if len(wanted) > 1:
            raise VitrineError(f"`{name}` asks for {', '.join(wanted)}: give the ids as a mapping from join key to ids")
        return {key: _listed(ids) for key in wanted}, len(ids)
    missing = [key for key in wanted if key not in ids]
    if missing:
        raise VitrineError(f"`{name}` asks for {', '.join(wanted)}; there are no ids for {', '.join(missing)}")
    counts = {len(one) for one in ids.values() if not _is_one(one)}
    if len(counts) > 1:
        raise VitrineError(f"`{name}`: the join keys' ids are of different numbers: {sorted(counts)}")
    count = counts.pop() if counts else 1
    return {key: [ids[key]] if _is_one(ids[key]) else _listed(ids[key]) for key in wanted}, count


def _is_one(ids: Any) -> bool:
    """Whether this is one id, not a sequence of them."""
    return isinstance(ids, str | bytes) or not hasattr(ids, "__len__")


def _listed(ids: Any) -> list[Any]:
    """Ids as Python values, whether they come as a list, a NumPy or an Arrow array."""
    if hasattr(ids, "to_pylist"):
        return ids.to_pylist()
    return ids.tolist() if hasattr(ids, "tolist") else list(ids)
