"""The catalog of one project in a store: read, kept current, and changed by compare-and-swap.

catalog.py has the format and the keys.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow.compute as pc

from feature_repo.arrow.columns import Column
from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError
from feature_repo.online import entity_keys
from feature_repo.online.catalog import (
    VERSION_SEPARATOR,
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
        self._read_at = 0.0
        self._dictionaries: dict[tuple[str, str, str], list[str]] = {}

    def is_fresh(self, seconds: float) -> bool:
        """Return whether the catalog was read at most `seconds` ago, so that `refresh` and `load` do not read it."""
        return self._catalog is not None and time.monotonic() - self._read_at <= seconds

    def load(self) -> ProjectCatalog:
        """Return the catalog as last read; read it if it has not been read yet.

        Raises:
            VitrineError: the catalog was written by a later version of this program, or the store does not answer.
        """
        return self._catalog if self._catalog is not None else self.reload()

    def refresh(self, seconds: float) -> None:
        """Read the catalog again if it was read more than `seconds` ago. One that was not read yet is not read."""
        if self._catalog is not None and not self.is_fresh(seconds):
            self.reload()

    def reload(self) -> ProjectCatalog:
        """Read the catalog and all dictionaries from the store, and return the catalog.

        A project without a catalog gives an empty one.

        Raises:
            VitrineError: the catalog was written by a later version of this program, or the store does not answer.
        """
        self._read_at = time.monotonic()
        with self._lock:  # held while reading: of two threads, the one that read first must not be the last to store
            raw = self._store.get(catalog_key(self._project))
            catalog = ProjectCatalog.from_bytes(raw)
            ids = list(dictionary_ids(list(catalog.views.values())))
            (stored,) = self._store.read([[dictionary_key(self._project, *id_) for id_ in ids]])
            dictionaries = {id_: json.loads(words or b"[]") for id_, words in zip(ids, stored, strict=True)}
            self._catalog, self._raw, self._dictionaries = catalog, raw, dictionaries
            return catalog

    def get_view(self, name: str) -> View:
        """Return a view of the encoder version in production.

        If the catalog as last read does not have it, the catalog is read again.

        Raises:
            NotFoundError: the store has no view of that name.
        """
        view = self.load().find_view(name) or self.reload().find_view(name)
        if view is None:
            raise missing_view(name, self._project, self.load())
        return view

    def has_view(self, name: str) -> bool:
        """Return whether the store has a view now. The catalog is read again if it has changed or is gone."""
        self._reload_if_changed()
        return self.load().find_view(name) is not None

    def with_stored_layouts(self, view: View) -> View:
        """Return the view with its name in the store and the layouts that its rows may have: none if it has no rows.

        The rows are those of the encoder version in production. Nothing is stored. If the catalog as last read does not
        have the view, the catalog is read again.

        Args:
            view: the view; its own layouts are ignored.
        """
        known = self.load().find_view(view.name) or self.reload().find_view(view.name)
        return replace(view, layouts=()) if known is None else replace(view, name=known.name, layouts=known.layouts)

    def register_view(self, view: View, encoder_version: str | None = None) -> View:
        """Add or update a view so that readers find it; return it as stored, with its dictionaries and all layouts.

        Nothing is written if the store has the same view. Rows of older layouts stay, and stay readable. A writer calls
        this first. A view that another process has dropped and created again has new dictionaries, and readers do not
        accept codes of the old ones.

        Args:
            view: the view under its own name; its last layout is the one of new rows.
            encoder_version: the version of the rows, for a view that is derived from an encoder; None: the one in
                production.

        Raises:
            ConflictError: another view's keys have the same prefix, or an older layout has the same fingerprint.
        """
        self._reload_if_changed()
        view = replace(view, name=self.load().find_stored_name(view.name, encoder_version))
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

    def register_layout(self, view: View, encoder_version: str | None = None) -> View:
        """Return a view with the layout of rows to write as its last one, and register it if the store lacks it.

        A layout that the store has is left as it is, and so is the view's TTL: the writer's definitions may be older
        than those that were applied, and readers must not lose the features of the newest layout.

        Args:
            view: the view under its own name; its last layout is that of the rows to write.
            encoder_version: as for `register_view`.

        Raises:
            ConflictError: another view's keys have the same prefix, or an older layout has the same fingerprint.
        """
        self._reload_if_changed()
        name = self.load().find_stored_name(view.name, encoder_version)
        known = self.load().views.get(name)
        if known is not None:
            layouts = self.load().with_view(replace(view, name=name)).views[name].layouts
            if set(layouts) == set(known.layouts):
                return replace(known, layouts=layouts)
        return self.register_view(view, encoder_version)

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

    def begin_upgrade(self, production_version: str) -> None:
        """Record which encoder version readers get, so that rows of another one get names of their own.

        Nothing is written if one is recorded already.

        Args:
            production_version: the version of the rows that the store has under the views' own names.
        """
        self._reload_if_changed()
        if not self.load().production_version:
            self._change(
                lambda catalog: replace(
                    catalog,
                    production_version=catalog.production_version or production_version,
                    base_version=catalog.base_version or production_version,
                )
            )

    def switch_production(self, encoder_version: str, views: Sequence[str]) -> None:
        """Let readers get another encoder version, of all views and services at once.

        A reader takes it up between two requests, when it reads the catalog again. Nothing is deleted.

        Args:
            encoder_version: the version.
            views: own names of the views that are derived from an encoder.

        Raises:
            ConflictError: a view that readers get has no rows of this version in the store; nothing is changed.
        """

        def switch(catalog: ProjectCatalog) -> ProjectCatalog:
            missing = [
                view
                for view in views
                if catalog.find_view(view) and catalog.find_stored_name(view, encoder_version) not in catalog.views
            ]
            if missing:
                raise ConflictError(
                    f"the online store has no rows of {encoder_version} in {', '.join(sorted(missing))}; materialize "
                    "them first"
                )
            return replace(catalog, production_version=encoder_version)

        self._change(switch)

    def drop_other_versions(self, views: Sequence[str]) -> list[str]:
        """Remove the rows of every encoder version but the one in production; return the removed names in the store.

        Args:
            views: own names of the views that are derived from an encoder.
        """
        catalog = self.reload()
        kept = {catalog.find_stored_name(view) for view in views}
        dropped = [name for name in catalog.views if name.partition(VERSION_SEPARATOR)[0] in views and name not in kept]
        for name in dropped:
            self._drop_stored_view(name)
        if catalog.production_version and catalog.production_version != catalog.base_version:
            self._change(lambda changed: replace(changed, base_version=""))
        return dropped

    def drop_view(self, name: str) -> None:
        """Remove a view with its rows, dictionaries and materialization logs. A missing view is ignored.

        The rows of all encoder versions are removed. Services that name the view are kept; a fetch of one fails then.
        """
        for view in self.reload().list_versions(name):
            self._drop_stored_view(view.name)

    def _drop_stored_view(self, name: str) -> None:
        """Remove one view by its name in the store."""
        view = self.reload().views.get(name)
        if view is None:
            return
        prefix = entity_keys.make_prefix(self._project, name)
        # The log goes first: if this is interrupted, no log may name rows that are gone. The catalog goes last, so that
        # the rows are found when this is done again.
        self._store.delete([materialization_log_key(self._project, name)])
        self._store.delete_prefix(prefix)
        self._change(lambda catalog: catalog.without_view(name))
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

    def extend_dictionaries(self, view: View, features: Mapping[str, Column]) -> dict[str, list[str]]:
        """Add the texts of columns to the dictionaries of their features; return all texts of each, by feature.

        Known texts keep their codes. New ones are added at the end, in the order in which they first appear. The
        dictionaries are read from the store each time: a store that was restored from a copy lacks texts that this
        process has added, and gives their codes to others.

        Args:
            view: as `register_view` returned it.
            features: a column of texts, in which nulls are ignored, for each feature with storage "dictionary"; other
                columns are ignored. A feature without a column is not in the result.

        Raises:
            InvalidInputError: a dictionary would have more than MAX_DICTIONARY_SIZE texts. Nothing is added to it then.
        """
        fields = [one for one in view.layout.fields if one.storage == "dictionary" and one.name in features]
        ids = [(view.name, one.name, one.dictionary) for one in fields]
        (stored,) = self._store.read([[dictionary_key(self._project, *id_) for id_ in ids]])
        extended = {
            id_: self._extend_dictionary(id_, raw, pc.unique(features[one.name].values.drop_null()).to_pylist())
            for one, id_, raw in zip(fields, ids, stored, strict=True)
        }
        with self._lock:
            self._dictionaries = {**self._dictionaries, **extended}
        return {feature: texts for (_, feature, _), texts in extended.items()}

    def _extend_dictionary(self, id_: tuple[str, str, str], stored: bytes | None, texts: Sequence[str]) -> list[str]:
        """Add distinct texts to a dictionary whose value in the store is `stored`; return all of its texts."""
        key = dictionary_key(self._project, *id_)
        while True:
            known = json.loads(stored or b"[]")
            known_texts = set(known)
            added = [text for text in texts if text not in known_texts]
            if len(known) + len(added) > MAX_DICTIONARY_SIZE:
                raise InvalidInputError(
                    f"feature `{id_[1]}` of view `{id_[0]}` has more than {MAX_DICTIONARY_SIZE} different texts; "
                    "remove the tag storage=dictionary from its Field"
                )
            extended = [*known, *added]
            if not added or self._store.compare_and_swap(
                key, stored, json.dumps(extended, ensure_ascii=False).encode()
            ):
                return extended
            stored = self._store.get(key)

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


def missing_view(name: str, project: str, catalog: ProjectCatalog) -> NotFoundError:
    """Return the error for a view that a store does not have."""
    return NotFoundError(
        f"the online store has no view `{name}` in project `{project}`; it has "
        f"{', '.join(sorted(catalog.list_views())) or 'none'}: run `feast apply`, then materialize"
    )
