"""What an online store says of a project: its views, their dictionaries, its services (record.py).

Read once and kept; it is read anew when a row shows that it has changed, or when asked for. Changes are made by
compare-and-swap, so that two writers never disagree.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import pyarrow.compute as pc

from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.errors import VitrineError
from feature_repo.online import entity_keys
from feature_repo.online.catalog import (
    Record,
    Service,
    View,
    dictionaries,
    owner,
    owner_key,
    record_key,
    words_key,
    written_key,
)
from feature_repo.online.row_format import MAX_DICTIONARY_SIZE
from feature_repo.online.store import Store


class StoredViews:
    """The views of one project in one store. Threads may share it."""

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._project = project
        self._lock = threading.Lock()
        self._record: Record | None = None
        self._raw: bytes | None = None
        self._words: dict[tuple[str, str, str], list[str]] = {}

    def is_known(self) -> bool:
        """Whether the store has been asked what it holds."""
        return self._record is not None

    def record(self) -> Record:
        """What the store says of the project, as last read."""
        return self._record if self._record is not None else self.reload()

    def reload(self) -> Record:
        """Read anew what the store says of the project."""
        raw = self._store.get(record_key(self._project))
        record = Record.from_bytes(raw)
        words = {
            name: json.loads(self._store.get(words_key(self._project, *name)) or b"[]")
            for name in dictionaries(list(record.views.values()))
        }
        with self._lock:
            self._record, self._raw, self._words = record, raw, words
        return record

    def get(self, name: str) -> View:
        """A view of the project.

        Raises:
            VitrineError: the store has none of that name.
        """
        view = self.record().views.get(name) or self.reload().views.get(name)
        if view is None:
            raise VitrineError(
                f"the online store has no view `{name}` in project `{self._project}`; it has "
                f"{', '.join(sorted(self.record().views)) or 'none'}: run `feast apply`, then materialize"
            )
        return view

    def as_stored(self, view: View) -> View:
        """A view as its reader knows it, with the layouts that its rows may be of; without any if it has no rows."""
        known = self.record().views.get(view.name) or self.reload().views.get(view.name)
        return replace(view, layouts=() if known is None else known.layouts)

    def register(self, view: View) -> View:
        """Make a view known to readers, with its last layout as the one to write; returns it as it is now known.

        Who writes calls it first: a view that another process has dropped and made anew has other dictionaries, and
        rows of the old ones would be refused.

        Raises:
            VitrineError: the keys of another view begin like this one's.
        """
        if self._record is None or self._store.get(record_key(self._project)) != self._raw:
            self.reload()
        known = self.record().views.get(view.name)
        if known is not None and self.record().with_view(view).views[view.name] == known:
            return known
        key, mine = owner_key(entity_keys.make_prefix(self._project, view.name)), owner(self._project, view.name)
        if not self._store.compare_and_swap(key, None, mine) and self._store.get(key) != mine:
            raise VitrineError(
                f"the keys of view `{view.name}` of project `{self._project}` would begin like those of "
                f"{(self._store.get(key) or b'').decode()}; rename it"
            )
        return self._change(lambda record: record.with_view(view)).views[view.name]

    def set_services(self, services: Mapping[str, Service]) -> None:
        """Make the project's feature services known to readers."""
        if self.record().services != services:
            self._change(lambda record: replace(record, services=services))

    def drop(self, name: str) -> None:
        """Forget a view, its dictionaries and its rows; nothing happens if there is none."""
        view = self.reload().views.get(name)
        if view is None:
            return
        prefix = entity_keys.make_prefix(self._project, name)
        self._store.delete([written_key(self._project, name)])  # first of all: it must not outlive the rows
        self._change(lambda record: record.without_view(name))
        self._store.delete_prefix(prefix)
        self._store.delete([owner_key(prefix), *(words_key(self._project, *one) for one in dictionaries([view]))])

    def forget(self) -> None:
        """Remove the project from the store."""
        for name in self.reload().views:
            self.drop(name)
        self._store.delete([record_key(self._project)])
        self.reload()

    def words(self, view: View) -> dict[str, list[str]]:
        """The dictionaries of a view's features, as last read."""
        return {feature: self._words.get((view.name, feature, id_), []) for feature, id_ in view.dictionaries}

    def learn(self, view: View, feature: Field, column: Column) -> list[str]:
        """The field's dictionary, in which by now all texts of the column are.

        Raises:
            VitrineError: there are more different texts than codes.
        """
        name = (view.name, feature.name, feature.dictionary)
        texts = pc.unique(column.values.drop_null()).to_pylist()
        known = self._words.get(name, [])
        while not set(texts) <= set(known):
            key = words_key(self._project, *name)
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

    def _change(self, change: Callable[[Record], Record]) -> Record:
        key = record_key(self._project)
        while True:
            old = self._store.get(key)
            record = change(Record.from_bytes(old))
            if self._store.compare_and_swap(key, old, record.to_bytes(self._project)):
                return self.reload()
