"""The catalog of an online store: the views, layouts, dictionaries and services of a project.

It makes readers independent of Feast and its registry. The catalog of a project is one JSON at the key
`vitrine:{project}` (the braces are part of the key):

    {"format": 1,
     "views": {name: {"prefix": the prefix of its keys (entity_keys.py),
                      "join_keys": [[name, type], ...],   sorted by name
                      "ttl": microseconds; 0: rows never become stale,
                      "layouts": [[field, ...], ...]}},   row_format.py; the newest last; stored rows may have any
     "encoder": {"production": version, "base": version},   the encoder version that readers get; absent without upgrade
     "services": {name: {"views": [{"view": name, "name": its name in the service, "features": [name, ...],
                                    "join_keys": {the view's name: the service's name}}, ...],
                         "on_demand": [name, ...]}},      views that are computed for each request and not stored
     "child_age_months": [bound, ...]}                    of the stages; missing for those of schema.CHILD_AGES

A view whose rows are derived from an encoder is in the store once for each encoder version that is kept: under its own
name for the version "base", as `view#version` for others. Both are views in every respect. Readers, and writers who
name no version, get the one of the version in production (`ProjectCatalog.find_stored_name`), so one change of the
catalog switches all views and services at once.

Other keys of a project:

    vitrine:{project}:words:<view>:<feature>:<dictionary>   a dictionary: a JSON list of texts; a code is an index in it
    vitrine:prefix:<prefix>                                 the JSON [project, view] whose keys have the prefix
    vitrine:{project}:written:<view>                        which rows of the view are online (materialization_log.py)
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from feature_repo.errors import ConflictError, VitrineError
from feature_repo.online import entity_keys
from feature_repo.online.row_format import Layout
from feature_repo.schema import CHILD_AGE_MONTHS

FORMAT = 1
"""Format of the stored catalog. A catalog of another format is refused."""

VERSION_SEPARATOR = "#"
"""Stands between a view's own name and the encoder version in the name of its rows in the store."""

FILL_AGAIN = "run `feast apply`, then `feast materialize-incremental`"
"""What to do about a store that lacks views, services or rows."""


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
        """The layout of new rows: the last of `layouts`. An IndexError if there are none."""
        return self.layouts[-1]

    @cached_property
    def layouts_by_fingerprint(self) -> dict[int, Layout]:
        """The layouts by their fingerprints, in the order of `layouts`."""
        return {layout.fingerprint: layout for layout in self.layouts}

    @cached_property
    def dictionary_ids(self) -> frozenset[tuple[str, str]]:
        """(feature's name, dictionary's id) of every dictionary that stored rows of any layout may have codes of."""
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
    """(the view's join key, the service's name for it), where they differ; sorted by the view's join key."""


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
    age_bounds: tuple[float, ...] = CHILD_AGE_MONTHS
    """Bounds of the child age stages in months (feature_repo/age_scale.py)."""
    production_version: str = ""
    """The encoder version that readers get; empty if the store has had no upgrade."""
    base_version: str = ""
    """The encoder version of the rows of views under their own names; empty if there are none, or without an upgrade.
    """

    def find_stored_name(self, view: str, encoder_version: str | None = None) -> str:
        """Return the name in the store of a view's rows of one encoder version.

        Args:
            view: the view's own name. That of a view that is not derived from an encoder is returned as it is, unless
                `encoder_version` is given.
            encoder_version: the version; None for the one in production.
        """
        if encoder_version is not None:
            is_base = not self.production_version or encoder_version == self.base_version
            return view if is_base else f"{view}{VERSION_SEPARATOR}{encoder_version}"
        versioned = f"{view}{VERSION_SEPARATOR}{self.production_version}"
        return versioned if self.production_version and versioned in self.views else view

    def find_view(self, name: str) -> "View | None":
        """Return a view of the encoder version in production by its own name; None if the store has none."""
        return self.views.get(self.find_stored_name(name))

    def list_views(self) -> "dict[str, View]":
        """Return the views that readers get, by their own names: those of the encoder version in production."""
        names = dict.fromkeys(name.partition(VERSION_SEPARATOR)[0] for name in self.views)
        found = {name: self.find_view(name) for name in names}
        return {name: view for name, view in found.items() if view is not None}

    def list_versions(self, name: str) -> "list[View]":
        """Return a view of every encoder version by its own name; none if the store has no such view."""
        return [view for stored, view in self.views.items() if name in (stored, stored.partition(VERSION_SEPARATOR)[0])]

    def with_view(self, view: View) -> "ProjectCatalog":
        """Return the catalog with the view added or replaced. Layouts of the replaced view stay readable.

        A layout that the view had before becomes the newest again, without a second copy. Join keys and TTL are those
        of the new view.

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

    def find_gaps(self) -> list[str]:
        """Return what readers need and the store lacks, one line for each gap; empty if nothing is missing.

        A store that lost its data, or was never filled, has no views. A service that names a view which the store
        lacks cannot be fetched.
        """
        views = self.list_views()
        if not views:
            return [f"the online store has no views: it is new, or it has lost its data; {FILL_AGAIN}"]
        names = {view.view: name for name, service in self.services.items() for view in service.views}
        return [
            f"the online store has no view `{view}`, which service `{names[view]}` names; {FILL_AGAIN}"
            for view in sorted(names.keys() - views.keys())
        ]

    def to_bytes(self, project: str) -> bytes:
        """Return the catalog as the JSON that is stored, in UTF-8.

        Args:
            project: the project's name, from which the prefixes of the keys are computed.
        """
        encoder = {"production": self.production_version, "base": self.base_version}
        catalog: dict[str, Any] = {
            "format": FORMAT,
            **({"encoder": encoder} if self.production_version else {}),
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
        if self.age_bounds != CHILD_AGE_MONTHS:
            catalog["child_age_months"] = self.age_bounds
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
            age_bounds=tuple(catalog.get("child_age_months", CHILD_AGE_MONTHS)),
            production_version=catalog.get("encoder", {}).get("production", ""),
            base_version=catalog.get("encoder", {}).get("base", ""),
        )


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
    """Return (view's name, feature's name, dictionary's id) of every dictionary that stored rows may have codes of."""
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
