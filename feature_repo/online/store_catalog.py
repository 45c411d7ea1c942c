"""The catalog of one project in a store: read, kept current, and changed by compare-and-swap.

catalog.py has the format and the keys.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import pyarrow.compute as pc

from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError
from feature_repo.online import entity_keys
from feature_repo.online.catalog import (
    ProjectCatalog,
    Service,
    View,
    catalog_key,
    dictionary_ids,
    dictionary_key,
    materialization_log_key,
    prefix_owner,
    prefix_owner_key,
)
from feature_repo.online.row_format import MAX_DICTIONARY_SIZE
from feature_repo.online.store import Store


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
        """Return the catalog as last read; read it if it has not been read yet.

        Raises:
            VitrineError: the catalog was written by a later version of this program, or the store does not answer.
        """
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

    def has_view(self, name: str) -> bool:
        """Return whether the store has a view now. The catalog is read again if it has changed or is gone."""
        self._reload_if_changed()
        return name in self.load().views

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

        Nothing is written if the store has the same view. Rows of older layouts stay, and stay readable. A writer calls
        this first. A view that another process has dropped and created again has new dictionaries, and readers do not
        accept codes of the old ones.

        Args:
            view: the view; its last layout is the one of new rows.

        Raises:
            ConflictError: another view's keys have the same prefix, or an older layout has the same fingerprint.
        """
        self._reload_if_changed()
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
        """Replace all feature services of the project; write nothing if the store has the same.

        Args:
            services: the services by name; one that is not among them is removed. Whether their views exist is not
                checked.
        """
        self._reload_if_changed()
        if self.load().services != services:
            self._change(lambda catalog: replace(catalog, services=services))

    def set_age_bounds(self, bounds: tuple[float, ...]) -> None:
        """Set the bounds of the child age stages in months; write nothing if the store has the same."""
        self._reload_if_changed()
        if self.load().age_bounds != bounds:
            self._change(lambda catalog: replace(catalog, age_bounds=bounds))

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
        """Return the dictionary of each feature that has storage "dictionary" in a layout of the view, as last read.

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

    def _reload_if_changed(self) -> None:
        """Read the catalog if it has not been read yet, or if another process has changed or deleted it since."""
        if self._catalog is None or self._store.get(catalog_key(self._project)) != self._raw:
            self.reload()

    def _change(self, change: Callable[[ProjectCatalog], ProjectCatalog]) -> ProjectCatalog:
        """Change the stored catalog; try again if another process changed it meanwhile."""
        key = catalog_key(self._project)
        while True:
            old = self._store.get(key)
            catalog = change(ProjectCatalog.from_bytes(old))
            if self._store.compare_and_swap(key, old, catalog.to_bytes(self._project)):
                return self.reload()
