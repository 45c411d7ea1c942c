"""Packed rows of one project in an online store: columns in, columns out, whichever the store.

A store offers a few operations on bytes (store.py); everything else is here: which layout and dictionaries hold, what
to do when another process changed them, and that two writers never disagree on either. What the store says of itself
(record.py) is read once and kept; it is read anew when a row shows that it has changed, or when asked for.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.errors import VitrineError
from feature_repo.tables import entity_keys
from feature_repo.tables.columns import Column
from feature_repo.tables.conversation import Conversation
from feature_repo.tables.decode import Rows, decode
from feature_repo.tables.encode import encode
from feature_repo.tables.layout import MAX_WORDS, NO_CREATED_TIMESTAMP, Field
from feature_repo.tables.record import (
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
from feature_repo.tables.store import Store


@dataclass(frozen=True)
class Request:
    """What is asked of one view."""

    view: View
    fields: tuple[Field, ...]
    keys: Sequence[bytes]
    out: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """For some features that are floats, the array that takes the values."""


Witness = Callable[[str, Sequence[bytes], Sequence[bytes | None], int], None]
"""Is shown what a reading found: the view, the keys, their rows, and the time in microseconds since 1970 UTC."""


class OnlineTable:
    """The packed rows of one project in one store. Threads may share it.

    Args:
        witness: of every reading.
    """

    def __init__(self, store: Store, project: str, *, witness: Witness | None = None) -> None:
        self.store = store
        self.project = project
        self.witness = witness
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
        raw = self.store.get(record_key(self.project))
        record = Record.from_bytes(raw)
        words = {
            name: json.loads(self.store.get(words_key(self.project, *name)) or b"[]")
            for name in dictionaries(list(record.views.values()))
        }
        with self._lock:
            self._record, self._raw, self._words = record, raw, words
        return record

    def view(self, name: str) -> View:
        """A view of the project.

        Raises:
            VitrineError: the store has none of that name.
        """
        view = self.record().views.get(name) or self.reload().views.get(name)
        if view is None:
            raise VitrineError(
                f"the online store has no view `{name}` in project `{self.project}`; it has "
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
        if self._record is None or self.store.get(record_key(self.project)) != self._raw:
            self.reload()
        known = self.record().views.get(view.name)
        if known is not None and self.record().with_view(view).views[view.name] == known:
            return known
        key, mine = owner_key(entity_keys.prefix(self.project, view.name)), owner(self.project, view.name)
        if not self.store.swap(key, None, mine) and self.store.get(key) != mine:
            raise VitrineError(
                f"the keys of view `{view.name}` of project `{self.project}` would begin like those of "
                f"{(self.store.get(key) or b'').decode()}; rename it"
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
        prefix = entity_keys.prefix(self.project, name)
        self.store.delete([written_key(self.project, name)])  # first of all: it must not outlive the rows
        self._change(lambda record: record.without_view(name))
        self.store.drop(prefix)
        self.store.delete([owner_key(prefix), *(words_key(self.project, *one) for one in dictionaries([view]))])

    def forget(self) -> None:
        """Remove the project from the store."""
        for name in self.reload().views:
            self.drop(name)
        self.store.delete([record_key(self.project)])
        self.reload()

    def forget_entities(self, join_key: str, values: Sequence[str]) -> dict[str, int]:
        """Remove the rows of some entities, alone or beside others, from every view; returns how many of each.

        Raises:
            VitrineError: a view of several entities has rows whose ids are too long to be in their keys; all others
                have been removed.
        """
        if not values:
            return {}
        removed: dict[str, int] = {}
        unknown: dict[str, int] = {}
        for name, view in self.reload().views.items():
            names = [key for key, _ in view.join_keys]
            if join_key not in names:
                continue
            if len(names) == 1:
                found = entity_keys.keys(entity_keys.prefix(self.project, name), [values])
            else:
                found, unknown[name] = self._keys_with(name, len(names), names.index(join_key), values)
            removed[name] = self.store.delete(found)
        for name, rows in unknown.items():
            if rows:
                raise VitrineError(
                    f"view `{name}` has {rows:,} rows of ids so long that only their hash is online: whose they are "
                    "cannot be told; `feast apply` without the view, then with it, and materialize it anew"
                )
        return {name: rows for name, rows in removed.items() if rows}

    def _keys_with(self, name: str, join_keys: int, place: int, values: Sequence[str]) -> tuple[list[bytes], int]:
        """The keys of a view's rows that have one of the values as their join key `place`, and how many are unknown."""
        wanted = {value.encode() for value in values}
        unknown = 0

        def is_one(key: bytes) -> bool:
            nonlocal unknown
            texts = entity_keys.texts(key, join_keys)
            unknown += texts is None
            return texts is not None and texts[place] in wanted

        found = self.store.keys(entity_keys.prefix(self.project, name), is_one)
        return found, unknown

    def keys(self, view: View, join_keys: Mapping[str, Sequence[Any]], count: int) -> list[bytes]:
        """The keys of `count` entities in a view, from the values of each of its join keys."""
        values = [join_keys[name] for name, _ in view.join_keys] or [[""] * count]
        return entity_keys.keys(entity_keys.prefix(self.project, view.name), values)

    def write(
        self,
        view: View,
        keys: Sequence[bytes],
        features: Mapping[str, Column],
        event: NDArray[np.int64],
        created: NDArray[np.int64] | None,
    ) -> int:
        """Write one row per key, except where a newer one is; returns how many were written."""
        return self.store.write(*self.pack(view, keys, features, event, created), view.ttl)

    def pack(
        self,
        view: View,
        keys: Sequence[bytes],
        features: Mapping[str, Column],
        event: NDArray[np.int64],
        created: NDArray[np.int64] | None,
    ) -> tuple[list[bytes], list[bytes]]:
        """Keys and packed rows as the store takes them: of each key the newest row alone.

        Args:
            view: as `register` gave it back.
            keys: of n entities; repeats are allowed.
            features: a column of n for each feature; a feature without one is null.
            event: [n], microseconds since 1970 UTC.
            created: likewise; None if unknown.
        """
        words = {
            one.name: self._learn(view, one, features[one.name])
            for one in view.layout.fields
            if one.storage == "dictionary" and one.name in features
        }
        rows = encode(view.layout, features, event, created, words)
        newest = _newest(keys, event, created)
        if newest is None:
            return list(keys), rows
        return [keys[i] for i in newest], [rows[i] for i in newest]

    def read(
        self,
        requests: Sequence[Request],
        now: int,
        *,
        keep_stale: bool = False,
    ) -> list[Rows]:
        """The newest row of each key of each request.

        Args:
            now: microseconds since 1970 UTC; a row whose event timestamp is more than its view's TTL ago is stale.
            keep_stale: give the values of stale rows, which are missing otherwise.
        """
        return self.unpack(requests, self.store.read([request.keys for request in requests]), now, keep_stale)

    @contextmanager
    def conversation(self, now: int, *, keep_stale: bool = False) -> Iterator["Talk"]:
        """`read`, of requests that are known one after the other."""
        with self.store.conversation() as talk:
            yield Talk(self, talk, now, keep_stale)

    def unpack(
        self,
        requests: Sequence[Request],
        found: Sequence[Sequence[bytes | None]],
        now: int,
        keep_stale: bool = False,
    ) -> list[Rows]:
        """Columns from what the store gave for the requests' keys."""
        if self.witness is not None:
            for request, values in zip(requests, found, strict=True):
                self.witness(request.view.name, request.keys, values, now)
        rows = self._decode(requests, found, now, keep_stale)
        if any(one.unknown for one in rows):
            record = self.reload()
            requests = [
                replace(one, view=replace(one.view, layouts=record.views[one.view.name].layouts))
                for one in requests
                if one.view.name in record.views
            ]
            rows = self._decode(requests, found, now, keep_stale)
        return rows

    def _decode(
        self,
        requests: Sequence[Request],
        found: Sequence[Sequence[bytes | None]],
        now: int,
        keep_stale: bool,
    ) -> list[Rows]:
        return [
            decode(
                values,
                request.view.by_fingerprint,
                request.fields,
                self.words(request.view),
                oldest=now - request.view.ttl if request.view.ttl else None,
                keep_stale=keep_stale,
                out=request.out,
            )
            for request, values in zip(requests, found, strict=True)
        ]

    def words(self, view: View) -> dict[str, list[str]]:
        """The dictionaries of a view's features, as last read."""
        return {feature: self._words.get((view.name, feature, id_), []) for feature, id_ in view.dictionaries}

    def _learn(self, view: View, feature: Field, column: Column) -> list[str]:
        """The field's dictionary, in which by now all texts of the column are.

        Raises:
            VitrineError: there are more different texts than codes.
        """
        name = (view.name, feature.name, feature.dictionary)
        texts = pc.unique(column.values.drop_null()).to_pylist()
        known = self._words.get(name, [])
        while not set(texts) <= set(known):
            key = words_key(self.project, *name)
            old = self.store.get(key)
            known = json.loads(old or b"[]")
            known += [text for text in texts if text not in set(known)]
            if len(known) > MAX_WORDS:
                raise VitrineError(
                    f"feature `{feature.name}` of view `{view.name}` has more than {MAX_WORDS} different texts; "
                    f"remove the tag storage=dictionary from its Field"
                )
            if not self.store.swap(key, old, json.dumps(known, ensure_ascii=False).encode()):
                known = []
        with self._lock:
            self._words = {**self._words, name: known}
        return known

    def _change(self, change: Callable[[Record], Record]) -> Record:
        key = record_key(self.project)
        while True:
            old = self.store.get(key)
            record = change(Record.from_bytes(old))
            if self.store.swap(key, old, record.to_bytes(self.project)):
                return self.reload()


class Talk:
    """A conversation in requests and columns (conversation.py). For one thread."""

    def __init__(self, table: OnlineTable, talk: Conversation, now: int, keep_stale: bool) -> None:
        self._table = table
        self._talk = talk
        self._now = now
        self._keep_stale = keep_stale
        self._asked: deque[Request] = deque()

    def ask(self, request: Request) -> None:
        self._talk.ask(request.keys)
        self._asked.append(request)

    def hear(self) -> Rows:
        """The rows of the request that was asked first among those not heard yet."""
        request = self._asked.popleft()
        (rows,) = self._table.unpack([request], [self._talk.hear()], self._now, self._keep_stale)
        return rows


def _newest(keys: Sequence[bytes], event: NDArray[np.int64], created: NDArray[np.int64] | None) -> list[int] | None:
    """Of each key the place of its newest row, the last of equals; None if no key repeats."""
    if len(set(keys)) == len(keys):
        return None
    times = np.full(len(keys), NO_CREATED_TIMESTAMP) if created is None else created
    order = np.lexsort((times, event)).tolist()
    return sorted({keys[i]: i for i in order}.values())
