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
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from feature_repo.errors import VitrineError
from feature_repo.online import entity_keys
from feature_repo.online.row_format import Layout

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
class ServicePart:
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

    parts: tuple[ServicePart, ...]
    on_demand: tuple[str, ...] = ()
    """Its on-demand views, which are not stored."""


@dataclass(frozen=True)
class Record:
    """What an online store says of one project."""

    views: Mapping[str, View] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)

    def with_view(self, view: View) -> "Record":
        """The record with a view as it is now; the layouts that it had stay readable."""
        known = self.views.get(view.name)
        layout = _with_dictionaries(view.layout, known)
        older = () if known is None else tuple(one for one in known.layouts if one != layout)
        if any(one.fingerprint == layout.fingerprint for one in older):
            raise VitrineError(f"view `{view.name}` once had another layout of the same fingerprint; rename a feature")
        return replace(self, views={**self.views, view.name: replace(view, layouts=(*older, layout))})

    def without_view(self, name: str) -> "Record":
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
    def from_bytes(data: bytes | None) -> "Record":
        """The record, empty if there is none.

        Raises:
            VitrineError: it was written by a later version of this program.
        """
        if data is None:
            return Record()
        record = json.loads(data)
        if record["format"] != FORMAT:
            raise VitrineError(
                f"the online store's format is {record['format']}, this program reads {FORMAT}; update it"
            )
        return Record(
            {name: _view_from_json(name, view) for name, view in record["views"].items()},
            {
                name: Service(tuple(map(_part_from_json, one["views"])), tuple(one["on_demand"]))
                for name, one in record["services"].items()
            },
        )


def record_key(project: str) -> bytes:
    return f"vitrine:{{{project}}}".encode()


def words_key(project: str, view: str, feature: str, dictionary: str) -> bytes:
    return f"vitrine:{{{project}}}:words:{view}:{feature}:{dictionary}".encode()


def written_key(project: str, view: str) -> bytes:
    return f"vitrine:{{{project}}}:written:{view}".encode()


def owner_key(prefix: bytes) -> bytes:
    return b"vitrine:prefix:" + prefix


def owner(project: str, view: str) -> bytes:
    return json.dumps([project, view], ensure_ascii=False).encode()


def dictionaries(views: Sequence[View]) -> set[tuple[str, str, str]]:
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


def _part_to_json(part: ServicePart) -> dict[str, Any]:
    return {"view": part.view, "name": part.name, "features": part.features, "join_keys": dict(part.join_keys)}


def _part_from_json(part: Mapping[str, Any]) -> ServicePart:
    return ServicePart(part["view"], part["name"], tuple(part["features"]), tuple(sorted(part["join_keys"].items())))
