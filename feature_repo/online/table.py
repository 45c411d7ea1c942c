"""Packed rows of one project in an online store: columns in, columns out, whichever the store.

A store offers a few operations on bytes (store.py), and says which layouts and dictionaries hold (stored_views.py).
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.errors import VitrineError
from feature_repo.online import entity_keys
from feature_repo.online.catalog import StoreCatalog, View
from feature_repo.online.decode import DecodedRows, decode_rows
from feature_repo.online.encode import encode_rows
from feature_repo.online.row_format import NO_CREATED_TIMESTAMP
from feature_repo.online.store import Pipeline, Store


@dataclass(frozen=True)
class ViewRequest:
    """What is asked of one view."""

    view: View
    fields: tuple[Field, ...]
    keys: Sequence[bytes]
    out: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """For some features that are floats, the array that takes the values."""


ReadObserver = Callable[[str, Sequence[bytes], Sequence[bytes | None], int], None]
"""Is shown what a reading found: the view, the keys, their rows, and the time in microseconds since 1970 UTC."""


class OnlineTable:
    """The packed rows of one project in one store. Threads may share it.

    Args:
        on_read: called after each read with its keys and packed rows.
    """

    def __init__(self, store: Store, project: str, *, on_read: ReadObserver | None = None) -> None:
        self.store = store
        self.project = project
        self.on_read = on_read
        self.catalog = StoreCatalog(store, project)

    def forget_entities(self, join_key: str, values: Sequence[str]) -> dict[str, int]:
        """Remove the rows of some entities, alone or beside others, from every view; returns how many of each.

        Raises:
            VitrineError: a view of several entities has rows whose ids are too long to be in their keys; all others
                have been removed.
        """
        removed: dict[str, int] = {}
        unknown: dict[str, int] = {}
        for name, keys, unknown_rows in self._find_keys(join_key, values):
            removed[name], unknown[name] = self.store.delete(keys), unknown_rows
        for name, rows in unknown.items():
            if rows:
                raise VitrineError(
                    f"view `{name}` has {rows:,} rows of ids so long that only their hash is online: whose they are "
                    "cannot be told; `feast apply` without the view, then with it, and materialize it anew"
                )
        return {name: rows for name, rows in removed.items() if rows}

    def count_entities(self, values: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """Return how many rows `forget_entities` would remove from each view, called for each join key of `values`.

        Views without such a row are left out. Rows whose ids are too long to be in their keys are not counted.
        """
        found: dict[str, set[bytes]] = {}
        for join_key, wanted in values.items():
            for name, keys, _ in self._find_keys(join_key, wanted):
                found.setdefault(name, set()).update(keys)
        rows = {name: self.store.read([list(keys)])[0] for name, keys in found.items()}
        counts = {name: sum(value is not None for value in each) for name, each in rows.items()}
        return {name: count for name, count in counts.items() if count}

    def _find_keys(self, join_key: str, values: Sequence[str]) -> Iterator[tuple[str, list[bytes], int]]:
        """Yield each view with the join key, the keys of the values, and how many keys do not show their ids."""
        if not values:
            return
        for name, view in self.catalog.reload().views.items():
            names = [key for key, _ in view.join_keys]
            if names == [join_key]:
                yield name, entity_keys.make_keys(entity_keys.make_prefix(self.project, name), [values]), 0
            elif join_key in names:
                yield name, *self._keys_with(name, len(names), names.index(join_key), values)

    def _keys_with(self, name: str, join_keys: int, place: int, values: Sequence[str]) -> tuple[list[bytes], int]:
        """The keys of a view's rows that have one of the values as their join key `place`, and how many are unknown."""
        wanted = {value.encode() for value in values}
        unknown = 0

        def is_one(key: bytes) -> bool:
            nonlocal unknown
            texts = entity_keys.split_key(key, join_keys)
            unknown += texts is None
            return texts is not None and texts[place] in wanted

        found = self.store.list_keys(entity_keys.make_prefix(self.project, name), is_one)
        return found, unknown

    def keys(self, view: View, join_keys: Mapping[str, Sequence[Any]], count: int) -> list[bytes]:
        """The keys of `count` entities in a view, from the values of each of its join keys."""
        values = [join_keys[name] for name, _ in view.join_keys] or [[""] * count]
        return entity_keys.make_keys(entity_keys.make_prefix(self.project, view.name), values)

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
            view: as `StoreCatalog.register_view` gave it back.
            keys: of n entities; repeats are allowed.
            features: a column of n for each feature; a feature without one is null.
            event: [n], microseconds since 1970 UTC.
            created: likewise; None if unknown.
        """
        words = {
            one.name: self.catalog.extend_dictionary(view, one, features[one.name])
            for one in view.layout.fields
            if one.storage == "dictionary" and one.name in features
        }
        rows = encode_rows(view.layout, features, event, created, words)
        newest = _newest(keys, event, created)
        if newest is None:
            return list(keys), rows
        return [keys[i] for i in newest], [rows[i] for i in newest]

    def read(
        self,
        requests: Sequence[ViewRequest],
        now: int,
        *,
        keep_stale: bool = False,
    ) -> list[DecodedRows]:
        """The newest row of each key of each request.

        Args:
            now: microseconds since 1970 UTC; a row whose event timestamp is more than its view's TTL ago is stale.
            keep_stale: give the values of stale rows, which are missing otherwise.
        """
        return self.unpack(requests, self.store.read([request.keys for request in requests]), now, keep_stale)

    @contextmanager
    def conversation(self, now: int, *, keep_stale: bool = False) -> Iterator["RequestPipeline"]:
        """`read`, of requests that are known one after the other."""
        with self.store.pipeline() as pipeline:
            yield RequestPipeline(self, pipeline, now, keep_stale)

    def unpack(
        self,
        requests: Sequence[ViewRequest],
        found: Sequence[Sequence[bytes | None]],
        now: int,
        keep_stale: bool = False,
    ) -> list[DecodedRows]:
        """Columns from what the store gave for the requests' keys."""
        if self.on_read is not None:
            for request, values in zip(requests, found, strict=True):
                self.on_read(request.view.name, request.keys, values, now)
        rows = self._decode(requests, found, now, keep_stale)
        if any(one.is_catalog_outdated for one in rows):
            views = self.catalog.reload().views
            layouts = {name: view.layouts for name, view in views.items()}  # a dropped view has none
            requests = [
                replace(one, view=replace(one.view, layouts=layouts.get(one.view.name, ()))) for one in requests
            ]
            rows = self._decode(requests, found, now, keep_stale)
        return rows

    def _decode(
        self,
        requests: Sequence[ViewRequest],
        found: Sequence[Sequence[bytes | None]],
        now: int,
        keep_stale: bool,
    ) -> list[DecodedRows]:
        return [
            decode_rows(
                values,
                request.view.by_fingerprint,
                request.fields,
                self.catalog.dictionaries(request.view),
                oldest_us=now - request.view.ttl if request.view.ttl else None,
                keep_stale=keep_stale,
                out=request.out,
            )
            for request, values in zip(requests, found, strict=True)
        ]


class RequestPipeline:
    """A conversation in requests and columns (store.py). For one thread."""

    def __init__(self, table: OnlineTable, pipeline: Pipeline, now: int, keep_stale: bool) -> None:
        self._table = table
        self._pipeline = pipeline
        self._now = now
        self._keep_stale = keep_stale
        self._asked: deque[ViewRequest] = deque()

    def ask(self, request: ViewRequest) -> None:
        self._pipeline.send(request.keys)
        self._asked.append(request)

    def hear(self) -> DecodedRows:
        """The rows of the request that was asked first among those not heard yet."""
        request = self._asked.popleft()
        (rows,) = self._table.unpack([request], [self._pipeline.receive()], self._now, self._keep_stale)
        return rows


def _newest(keys: Sequence[bytes], event: NDArray[np.int64], created: NDArray[np.int64] | None) -> list[int] | None:
    """Of each key the place of its newest row, the last of equals; None if no key repeats."""
    if len(set(keys)) == len(keys):
        return None
    times = np.full(len(keys), NO_CREATED_TIMESTAMP) if created is None else created
    order = np.lexsort((times, event)).tolist()
    return sorted({keys[i]: i for i in order}.values())
