"""The catalog of an online store: the views, layouts, dictionaries and services of a project.

It makes readers independent of Feast and its registry. The catalog of a project is one JSON at the key
`vitrine:{project}` (the braces are part of the key):

    {"format": 1,
     "views": {name: {"prefix": the prefix of its keys (entity_keys.py),
                      "join_keys": [[name, type], ...],   sorted by name
                      "ttl": microseconds; 0: rows never become stale,
                      "layouts": [[field, ...], ...]}},   row_format.py; the newest last; stored rows may have any
     "services": {name: {"views": [{"view": name, "name": its name in the service, "features": [name, ...],
                                    "join_keys": {the view's name: the service's name}}, ...],
                         "on_demand": [name, ...]}}}      views that are computed for each request and not stored

Other keys of a project:

    vitrine:{project}:words:<view>:<feature>:<dictionary>   a dictionary: a JSON list of texts; a code is an index in it
    vitrine:prefix:<prefix>                                 the JSON [project, view] whose keys have the prefix
    vitrine:{project}:written:<view>                        which rows of the view are online (materialization_log.py)
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
from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError, VitrineError
from feature_repo.online import entity_keys
from feature_repo.online.row_format import MAX_DICTIONARY_SIZE, Layout
from feature_repo.online.store import Store

FORMAT = 1
"""Format of the stored catalog. A catalog of another format is refused."""


@dataclass(frozen=True)
class View:
    """One feature view, as needed to read its rows."""

    name: str
    """Its name in the store. If Feast keeps versions of views, the version is part of it."""
    join_keys: tuple[tuple[str, str], ...]
    """(name, Feast's value type in lower case), sorted by name; empty for a view without entities."""
    ttl_us: int
    """Microseconds after which a row is stale; 0: never."""
    layouts: tuple[Layout, ...]
    """Every layout that stored rows may have, the newest last; empty for a view that is not in the store."""

    @property
    def layout(self) -> Layout:
        """The layout of new rows: the last of `layouts`. The view must have one."""
        return self.layouts[-1]

    @cached_property
    def layouts_by_fingerprint(self) -> dict[int, Layout]:
        """The layouts by their fingerprints, in the order of `layouts`."""
        return {layout.fingerprint: layout for layout in self.layouts}

    @cached_property
    def dictionary_ids(self) -> frozenset[tuple[str, str]]:
        """(feature, dictionary) of every dictionary that stored rows may have codes of."""
        fields = {one for layout in self.layouts for one in layout.fields}
        return frozenset((one.name, one.dictionary) for one in fields if one.storage == "dictionary")


@dataclass(frozen=True)
class ServiceView:
    """The part of a feature service that comes from one view."""

    view: str
    """The view's name in the store."""
    name: str
    """The view's name in the service."""
    features: tuple[str, ...]
    """Names of the view's features that the service has, in its order."""
    join_keys: tuple[tuple[str, str], ...] = ()
    """(the view's join key, the service's name for it), where they differ."""


@dataclass(frozen=True)
class Service:
    """A feature service: a named set of features."""

    views: tuple[ServiceView, ...]
    """What it has of each stored view, in its order."""
    on_demand: tuple[str, ...] = ()
    """Names of its on-demand views, which are computed for each request and not stored."""


@dataclass(frozen=True)
class ProjectCatalog:
    """The views and services of one project, at one time. Methods return a changed copy."""

    views: Mapping[str, View] = field(default_factory=dict)
    """The views by their names in the store."""
    services: Mapping[str, Service] = field(default_factory=dict)
    """The feature services by name."""

    def with_view(self, view: View) -> "ProjectCatalog":
        """Return the catalog with the view added or replaced. Layouts of the replaced view stay readable.

        Args:
            view: the view; of its layouts only the last one counts, which becomes the layout of new rows. Its fields
                with storage "dictionary" get the dictionaries of the replaced view, or new ones.

        Raises:
            ConflictError: an older, different layout of the view has the same fingerprint.
        """
        known = self.views.get(view.name)
        layout = _with_dictionaries(view.layout, known)
        older = () if known is None else tuple(one for one in known.layouts if one != layout)
        if any(one.fingerprint == layout.fingerprint for one in older):
            raise ConflictError(f"view `{view.name}` had another layout with the same fingerprint; rename a feature")
        return replace(self, views={**self.views, view.name: replace(view, layouts=(*older, layout))})

    def without_view(self, name: str) -> "ProjectCatalog":
        """Return the catalog without a view. A missing view is ignored. Services that name the view keep it."""
        return replace(self, views={other: view for other, view in self.views.items() if other != name})

    def to_bytes(self, project: str) -> bytes:
        """Return the catalog as the JSON that is stored, in UTF-8.

        Args:
            project: the project's name, from which the prefixes of the keys are computed.
        """
        catalog = {
            "format": FORMAT,
            "views": {
                name: {
                    "prefix": entity_keys.make_prefix(project, name).decode(),
                    "join_keys": view.join_keys,
                    "ttl": view.ttl_us,
                    "layouts": [layout.to_json() for layout in view.layouts],
                }
                for name, view in self.views.items()
            },
            "services": {
                name: {"views": [_service_view_to_json(view) for view in one.views], "on_demand": one.on_demand}
                for name, one in self.services.items()
            },
        }
        return json.dumps(catalog, ensure_ascii=False, sort_keys=True).encode()

    @staticmethod
    def from_bytes(data: bytes | None) -> "ProjectCatalog":
        """Parse a stored catalog. None gives an empty catalog.

        Raises:
            VitrineError: the catalog has another format, that of a later version of this program.
            ValueError: `data` is not JSON.
        """
        if data is None:
            return ProjectCatalog()
        catalog = json.loads(data)
        if catalog["format"] != FORMAT:
            raise VitrineError(
                f"the online store has format {catalog['format']}; this program reads format {FORMAT}: update it"
            )
        return ProjectCatalog(
            {name: _view_from_json(name, view) for name, view in catalog["views"].items()},
            {
                name: Service(tuple(map(_service_view_from_json, one["views"])), tuple(one["on_demand"]))
                for name, one in catalog["services"].items()
            },
        )


class StoreCatalog:
    """Reads and changes the catalog of one project in a store. Threads may share it.

    The catalog is read once and kept in memory. It is read again when a row shows that it has changed, and by `reload`.
    Changes are made by compare-and-swap, so that no writer overwrites the change of another. Every method that reads or
    writes the store raises UnavailableError if it does not answer.

    Args:
        store: the store. It is first asked when a method needs it.
        project: the project's name in Feast. A project that the store does not have is created by the first change.
    """

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._project = project
        self._lock = threading.Lock()
        self._catalog: ProjectCatalog | None = None
        self._raw: bytes | None = None
        self._dictionaries: dict[tuple[str, str, str], list[str]] = {}

    def is_loaded(self) -> bool:
        """Return whether the catalog has been read, so that `load` needs no round trip to the store."""
        return self._catalog is not None

    def load(self) -> ProjectCatalog:
        """Return the catalog as last read; read it if it has not been read yet."""
        return self._catalog if self._catalog is not None else self.reload()

    def reload(self) -> ProjectCatalog:
        """Read the catalog and all dictionaries from the store, and return the catalog.

        A project without a catalog gives an empty one.

        Raises:
            VitrineError: the catalog was written by a later version of this program, or the store does not answer.
        """
        raw = self._store.get(catalog_key(self._project))
        catalog = ProjectCatalog.from_bytes(raw)
        dictionaries = {
            id_: json.loads(self._store.get(dictionary_key(self._project, *id_)) or b"[]")
            for id_ in dictionary_ids(list(catalog.views.values()))
        }
        with self._lock:
            self._catalog, self._raw, self._dictionaries = catalog, raw, dictionaries
        return catalog

    def get_view(self, name: str) -> View:
        """Return a view. If the catalog as last read does not have it, the catalog is read again.

        Raises:
            NotFoundError: the store has no view of that name.
        """
        view = self.load().views.get(name) or self.reload().views.get(name)
        if view is None:
            raise NotFoundError(
                f"the online store has no view `{name}` in project `{self._project}`; it has "
                f"{', '.join(sorted(self.load().views)) or 'none'}: run `feast apply`, then materialize"
            )
        return view

    def with_stored_layouts(self, view: View) -> View:
        """Return the view with the layouts that its stored rows may have; without layouts if it is not in the store.

        Nothing is stored. If the catalog as last read does not have the view, the catalog is read again.

        Args:
            view: the view; its own layouts are ignored.
        """
        known = self.load().views.get(view.name) or self.reload().views.get(view.name)
        return replace(view, layouts=() if known is None else known.layouts)

    def register_view(self, view: View) -> View:
        """Add or update a view so that readers find it; return it with the ids of its dictionaries and all layouts.

        A writer calls this first. A view that another process has dropped and created again has new dictionaries, and
        readers do not accept codes of the old ones.

        Args:
            view: the view; its last layout is the one of new rows.

        Raises:
            ConflictError: another view's keys have the same prefix, or an older layout has the same fingerprint.
        """
        if self._catalog is None or self._store.get(catalog_key(self._project)) != self._raw:
            self.reload()
        known = self.load().views.get(view.name)
        if known is not None and self.load().with_view(view).views[view.name] == known:
            return known
        key = prefix_owner_key(entity_keys.make_prefix(self._project, view.name))
        owner = prefix_owner(self._project, view.name)
        if not self._store.compare_and_swap(key, None, owner) and self._store.get(key) != owner:
            raise ConflictError(
                f"the keys of view `{view.name}` of project `{self._project}` would have the same prefix as those of "
                f"{(self._store.get(key) or b'').decode()}; rename the view"
            )
        return self._change(lambda catalog: catalog.with_view(view)).views[view.name]

    def set_services(self, services: Mapping[str, Service]) -> None:
        """Replace all feature services of the project; write nothing if the catalog as last read has the same.

        Args:
            services: the services by name; one that is not among them is removed.
        """
        if self.load().services != services:
            self._change(lambda catalog: replace(catalog, services=services))

    def drop_view(self, name: str) -> None:
        """Remove a view with its rows, dictionaries and materialization log. A missing view is ignored.

        Services that name the view are kept; a fetch of one fails then.
        """
        view = self.reload().views.get(name)
        if view is None:
            return
        prefix = entity_keys.make_prefix(self._project, name)
        # The log goes first: if this is interrupted, no log may name rows that are gone.
        self._store.delete([materialization_log_key(self._project, name)])
        self._change(lambda catalog: catalog.without_view(name))
        self._store.delete_prefix(prefix)
        dictionaries = [dictionary_key(self._project, *id_) for id_ in dictionary_ids([view])]
        self._store.delete([prefix_owner_key(prefix), *dictionaries])

    def drop_project(self) -> None:
        """Remove the project with all of its views, their rows and its services. A missing project is ignored."""
        for name in self.reload().views:
            self.drop_view(name)
        self._store.delete([catalog_key(self._project)])
        self.reload()

    def dictionaries(self, view: View) -> dict[str, list[str]]:
        """Return the dictionary of each feature of a view with storage "dictionary", as last read.

        Keys are the features' names. The code of a text is its index in the list. A dictionary that was not in the
        store is empty.
        """
        return {feature: self._dictionaries.get((view.name, feature, id_), []) for feature, id_ in view.dictionary_ids}

    def extend_dictionary(self, view: View, feature: Field, column: Column) -> list[str]:
        """Add the texts of a column to the dictionary of a feature, where they are missing; return all of its texts.

        Known texts keep their codes. New ones are added at the end, in the order in which they first appear.

        Args:
            view: as `register_view` returned it.
            feature: a field of the view with storage "dictionary".
            column: texts; nulls are ignored.

        Raises:
            InvalidInputError: the dictionary would have more than MAX_DICTIONARY_SIZE texts. Nothing is added then.
        """
        id_ = (view.name, feature.name, feature.dictionary)
        texts = pc.unique(column.values.drop_null()).to_pylist()
        known = self._dictionaries.get(id_, [])
        while not set(texts) <= set(known):
            key = dictionary_key(self._project, *id_)
            old = self._store.get(key)
            known = json.loads(old or b"[]")
            known += [text for text in texts if text not in set(known)]
            if len(known) > MAX_DICTIONARY_SIZE:
                raise InvalidInputError(
                    f"feature `{feature.name}` of view `{view.name}` has more than {MAX_DICTIONARY_SIZE} different "
                    "texts; remove the tag storage=dictionary from its Field"
                )
            if not self._store.compare_and_swap(key, old, json.dumps(known, ensure_ascii=False).encode()):
                known = []
        with self._lock:
            self._dictionaries = {**self._dictionaries, id_: known}
        return known

    def _change(self, change: Callable[[ProjectCatalog], ProjectCatalog]) -> ProjectCatalog:
        """Change the stored catalog; try again if another process changed it meanwhile."""
        key = catalog_key(self._project)
        while True:
            old = self._store.get(key)
            catalog = change(ProjectCatalog.from_bytes(old))
            if self._store.compare_and_swap(key, old, catalog.to_bytes(self._project)):
                return self.reload()


def catalog_key(project: str) -> bytes:
    """Return the key of a project's catalog, in UTF-8."""
    return f"vitrine:{{{project}}}".encode()


def dictionary_key(project: str, view: str, feature: str, dictionary: str) -> bytes:
    """Return the key of a dictionary.

    Args:
        project: the project's name.
        view: the view's name in the store.
        feature: the feature's name.
        dictionary: the dictionary's id, which `StoreCatalog.register_view` gives to the field.
    """
    return f"vitrine:{{{project}}}:words:{view}:{feature}:{dictionary}".encode()


def materialization_log_key(project: str, view: str) -> bytes:
    """Return the key of a view's materialization log: which rows of the view are online.

    Args:
        project: the project's name.
        view: the view's name in the store.
    """
    return f"vitrine:{{{project}}}:written:{view}".encode()


def prefix_owner_key(prefix: bytes) -> bytes:
    """Return the key at which the store records whose keys have the prefix (`prefix_owner` is the value)."""
    return b"vitrine:prefix:" + prefix


def prefix_owner(project: str, view: str) -> bytes:
    """Return what the store records at `prefix_owner_key` for a view: the JSON [project, view] in UTF-8."""
    return json.dumps([project, view], ensure_ascii=False).encode()


def dictionary_ids(views: Sequence[View]) -> set[tuple[str, str, str]]:
    """Return (view, feature, id) of every dictionary that stored rows of the views may have codes of."""
    return {(view.name, *id_) for view in views for id_ in view.dictionary_ids}


def _with_dictionaries(layout: Layout, known: View | None) -> Layout:
    """Return the layout with an id for each field's dictionary: the view's present one, or a new one."""
    ids = {} if known is None else dict(known.dictionary_ids)
    return Layout(
        tuple(
            replace(one, dictionary=ids.get(one.name) or uuid.uuid4().hex[:8]) if one.storage == "dictionary" else one
            for one in layout.fields
        )
    )


def _view_from_json(name: str, view: Mapping[str, Any]) -> View:
    join_keys = tuple((key, type_) for key, type_ in view["join_keys"])
    return View(name, join_keys, view["ttl"], tuple(map(Layout.from_json, view["layouts"])))


def _service_view_to_json(view: ServiceView) -> dict[str, Any]:
    return {"view": view.view, "name": view.name, "features": view.features, "join_keys": dict(view.join_keys)}


def _service_view_from_json(view: Mapping[str, Any]) -> ServiceView:
    return ServiceView(view["view"], view["name"], tuple(view["features"]), tuple(sorted(view["join_keys"].items())))
