"""What an online store says of itself: one JSON per project, so that a reader needs no Feast and no registry.

    {"format": 1,
     "views": {name: {"prefix": what its keys begin with (entity_keys.py),
                      "join_keys": [[name, type], ...],   by name
                      "ttl": microseconds, 0 if rows never grow old,
                      "layouts": [[field, ...], ...]}},   layout.py; the newest last, the older ones may still have rows
     "services": {name: {"views": [{"view": name, "name": its name in the service, "features": [name, ...],
                                    "join_keys": {the view's: the service's}}, ...],
                         "on_demand": [name, ...]}}}        views that are computed when asked for, not stored

It lies at the key `vitrine:{project}` (the braces are part of it), and beside it
    `vitrine:{project}:words:<view>:<feature>:<dictionary>`   a dictionary: a JSON list of texts, in the order of codes
    `vitrine:prefix:<prefix>`                                 the JSON [project, view] whose keys begin so
    `vitrine:{project}:written:<view>`                        what has been materialized of a view (written.py)
"""

import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow.compute as pc

from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.errors import VitrineError
from feature_repo.online import entity_keys
from feature_repo.online.row_format import MAX_DICTIONARY_SIZE, Layout
from feature_repo.online.store import Store

FORMAT = 1


@dataclass(frozen=True)
class View:
    """One feature view, as its rows in the online store are to be read."""

    name: str
    join_keys: tuple[tuple[str, str], ...]
    """(name, Feast's value type in lower case), by name; none for a view without entities."""
    ttl: int
    """Microseconds; 0: rows never grow old."""
    layouts: tuple[Layout, ...]
    """Every layout that rows may be of, the newest last."""

    @property
    def layout(self) -> Layout:
        """The one that new rows are written in."""
        return self.layouts[-1]

    @cached_property
    def by_fingerprint(self) -> dict[int, Layout]:
        return {layout.fingerprint: layout for layout in self.layouts}

    @cached_property
    def dictionaries(self) -> frozenset[tuple[str, str]]:
        """(feature, dictionary) of every dictionary that its rows may have codes of."""
        fields = {one for layout in self.layouts for one in layout.fields}
        return frozenset((one.name, one.dictionary) for one in fields if one.storage == "dictionary")


@dataclass(frozen=True)
class ServiceView:
    """What a feature service takes of one view."""

    view: str
    name: str
    """What the view is called in the service."""
    features: tuple[str, ...]
    join_keys: tuple[tuple[str, str], ...] = ()
    """(the view's join key, the service's name for it), where they differ."""


@dataclass(frozen=True)
class Service:
    """A feature service: a set of features under one name."""

    parts: tuple[ServiceView, ...]
    on_demand: tuple[str, ...] = ()
    """Its on-demand views, which are not stored."""


@dataclass(frozen=True)
class ProjectCatalog:
    """What an online store says of one project."""

    views: Mapping[str, View] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)

    def with_view(self, view: View) -> "ProjectCatalog":
        """The record with a view as it is now; the layouts that it had stay readable."""
        known = self.views.get(view.name)
        layout = _with_dictionaries(view.layout, known)
        older = () if known is None else tuple(one for one in known.layouts if one != layout)
        if any(one.fingerprint == layout.fingerprint for one in older):
            raise VitrineError(f"view `{view.name}` once had another layout of the same fingerprint; rename a feature")
        return replace(self, views={**self.views, view.name: replace(view, layouts=(*older, layout))})

    def without_view(self, name: str) -> "ProjectCatalog":
        return replace(self, views={other: view for other, view in self.views.items() if other != name})

    def to_bytes(self, project: str) -> bytes:
        record = {
            "format": FORMAT,
            "views": {
                name: {
                    "prefix": entity_keys.make_prefix(project, name).decode(),
                    "join_keys": view.join_keys,
                    "ttl": view.ttl,
                    "layouts": [layout.to_json() for layout in view.layouts],
                }
                for name, view in self.views.items()
            },
            "services": {
                name: {"views": [_part_to_json(part) for part in service.parts], "on_demand": service.on_demand}
                for name, service in self.services.items()
            },
        }
        return json.dumps(record, ensure_ascii=False, sort_keys=True).encode()

    @staticmethod
    def from_bytes(data: bytes | None) -> "ProjectCatalog":
        """The record, empty if there is none.

        Raises:
            VitrineError: it was written by a later version of this program.
        """
        if data is None:
            return ProjectCatalog()
        record = json.loads(data)
        if record["format"] != FORMAT:
            raise VitrineError(
                f"the online store's format is {record['format']}, this program reads {FORMAT}; update it"
            )
        return ProjectCatalog(
            {name: _view_from_json(name, view) for name, view in record["views"].items()},
            {
                name: Service(tuple(map(_part_from_json, one["views"])), tuple(one["on_demand"]))
                for name, one in record["services"].items()
            },
        )


def catalog_key(project: str) -> bytes:
    return f"vitrine:{{{project}}}".encode()


def dictionary_key(project: str, view: str, feature: str, dictionary: str) -> bytes:
    return f"vitrine:{{{project}}}:words:{view}:{feature}:{dictionary}".encode()


def materialization_log_key(project: str, view: str) -> bytes:
    return f"vitrine:{{{project}}}:written:{view}".encode()


def prefix_owner_key(prefix: bytes) -> bytes:
    return b"vitrine:prefix:" + prefix


def prefix_owner(project: str, view: str) -> bytes:
    return json.dumps([project, view], ensure_ascii=False).encode()


def dictionary_ids(views: Sequence[View]) -> set[tuple[str, str, str]]:
    """(view, feature, dictionary) of every dictionary that rows of these views may have codes of."""
    return {(view.name, *one) for view in views for one in view.dictionaries}


def _with_dictionaries(layout: Layout, known: View | None) -> Layout:
    """The layout with each field's dictionary named: the one that its view has, else a new one."""
    names = {} if known is None else dict(known.dictionaries)
    return Layout(
        tuple(
            replace(one, dictionary=names.get(one.name) or uuid.uuid4().hex[:8]) if one.storage == "dictionary" else one
            for one in layout.fields
        )
    )


def _view_from_json(name: str, view: Mapping[str, Any]) -> View:
    join_keys = tuple((key, type_) for key, type_ in view["join_keys"])
    return View(name, join_keys, view["ttl"], tuple(map(Layout.from_json, view["layouts"])))


def _part_to_json(part: ServiceView) -> dict[str, Any]:
    return {"view": part.view, "name": part.name, "features": part.features, "join_keys": dict(part.join_keys)}


def _part_from_json(part: Mapping[str, Any]) -> ServiceView:
    return ServiceView(part["view"], part["name"], tuple(part["features"]), tuple(sorted(part["join_keys"].items())))


class StoreCatalog:
    """The views of one project in one store. Threads may share it."""

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._project = project
        self._lock = threading.Lock()
        self._record: ProjectCatalog | None = None
        self._raw: bytes | None = None
        self._words: dict[tuple[str, str, str], list[str]] = {}

    def is_loaded(self) -> bool:
        """Whether the store has been asked what it holds."""
        return self._record is not None

    def load(self) -> ProjectCatalog:
        """What the store says of the project, as last read."""
        return self._record if self._record is not None else self.reload()

    def reload(self) -> ProjectCatalog:
        """Read anew what the store says of the project."""
        raw = self._store.get(catalog_key(self._project))
        record = ProjectCatalog.from_bytes(raw)
        words = {
            name: json.loads(self._store.get(dictionary_key(self._project, *name)) or b"[]")
            for name in dictionary_ids(list(record.views.values()))
        }
        with self._lock:
            self._record, self._raw, self._words = record, raw, words
        return record

    def get_view(self, name: str) -> View:
        """A view of the project.

        Raises:
            VitrineError: the store has none of that name.
        """
        view = self.load().views.get(name) or self.reload().views.get(name)
        if view is None:
            raise VitrineError(
                f"the online store has no view `{name}` in project `{self._project}`; it has "
                f"{', '.join(sorted(self.load().views)) or 'none'}: run `feast apply`, then materialize"
            )
        return view

    def with_stored_layouts(self, view: View) -> View:
        """A view as its reader knows it, with the layouts that its rows may be of; without any if it has no rows."""
        known = self.load().views.get(view.name) or self.reload().views.get(view.name)
        return replace(view, layouts=() if known is None else known.layouts)

    def register_view(self, view: View) -> View:
        """Make a view known to readers, with its last layout as the one to write; returns it as it is now known.

        Who writes calls it first: a view that another process has dropped and made anew has other dictionaries, and
        rows of the old ones would be refused.

        Raises:
            VitrineError: the keys of another view begin like this one's.
        """
        if self._record is None or self._store.get(catalog_key(self._project)) != self._raw:
            self.reload()
        known = self.load().views.get(view.name)
        if known is not None and self.load().with_view(view).views[view.name] == known:
            return known
        key, mine = (
            prefix_owner_key(entity_keys.make_prefix(self._project, view.name)),
            prefix_owner(self._project, view.name),
        )
        if not self._store.compare_and_swap(key, None, mine) and self._store.get(key) != mine:
            raise VitrineError(
                f"the keys of view `{view.name}` of project `{self._project}` would begin like those of "
                f"{(self._store.get(key) or b'').decode()}; rename it"
            )
        return self._change(lambda record: record.with_view(view)).views[view.name]

    def set_services(self, services: Mapping[str, Service]) -> None:
        """Make the project's feature services known to readers."""
        if self.load().services != services:
            self._change(lambda record: replace(record, services=services))

    def drop_view(self, name: str) -> None:
        """Forget a view, its dictionaries and its rows; nothing happens if there is none."""
        view = self.reload().views.get(name)
        if view is None:
            return
        prefix = entity_keys.make_prefix(self._project, name)
        self._store.delete([materialization_log_key(self._project, name)])  # first of all: it must not outlive the rows
        self._change(lambda record: record.without_view(name))
        self._store.delete_prefix(prefix)
        self._store.delete(
            [prefix_owner_key(prefix), *(dictionary_key(self._project, *one) for one in dictionary_ids([view]))]
        )

    def drop_project(self) -> None:
        """Remove the project from the store."""
        for name in self.reload().views:
            self.drop_view(name)
        self._store.delete([catalog_key(self._project)])
        self.reload()

    def dictionaries(self, view: View) -> dict[str, list[str]]:
        """The dictionaries of a view's features, as last read."""
        return {feature: self._words.get((view.name, feature, id_), []) for feature, id_ in view.dictionaries}

    def extend_dictionary(self, view: View, feature: Field, column: Column) -> list[str]:
        """The field's dictionary, in which by now all texts of the column are.

        Raises:
            VitrineError: there are more different texts than codes.
        """
        name = (view.name, feature.name, feature.dictionary)
        texts = pc.unique(column.values.drop_null()).to_pylist()
        known = self._words.get(name, [])
        while not set(texts) <= set(known):
            key = dictionary_key(self._project, *name)
            old = self._store.get(key)
            known = json.loads(old or b"[]")
            known += [text for text in texts if text not in set(known)]
            if len(known) > MAX_DICTIONARY_SIZE:
                raise VitrineError(
                    f"feature `{feature.name}` of view `{view.name}` has more than "
                    f"{MAX_DICTIONARY_SIZE} different texts; remove the tag storage=dictionary from its Field"
                )
            if not self._store.compare_and_swap(key, old, json.dumps(known, ensure_ascii=False).encode()):
                known = []
        with self._lock:
            self._words = {**self._words, name: known}
        return known

    def _change(self, change: Callable[[ProjectCatalog], ProjectCatalog]) -> ProjectCatalog:
        key = catalog_key(self._project)
        while True:
            old = self._store.get(key)
            record = change(ProjectCatalog.from_bytes(old))
            if self._store.compare_and_swap(key, old, record.to_bytes(self._project)):
                return self.reload()
