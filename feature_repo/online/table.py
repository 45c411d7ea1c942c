"""The packed rows of one project in an online store: columns in, columns out.

A `Store` holds bytes by key; the project's `StoreCatalog` has the layouts and dictionaries of its views. `OnlineTable`
makes keys, encodes columns to packed rows and decodes packed rows to columns.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.arrow import text
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.errors import ConflictError
from feature_repo.online import entity_keys
from feature_repo.online.catalog import View
from feature_repo.online.decode import DecodedRows, decode_rows
from feature_repo.online.encode import encode_rows
from feature_repo.online.row_format import NO_CREATED_TIMESTAMP
from feature_repo.online.store import Pipeline, Store
from feature_repo.online.store_catalog import StoreCatalog


@dataclass(frozen=True)
class ViewRequest:
    """The keys and fields to read from one view."""

    view: View
    """The view, with every layout that its rows may have."""
    fields: tuple[Field, ...]
    """The fields to decode, in the order of the result."""
    keys: Sequence[bytes]
    """The keys of the rows, in the order of the result; repeats are allowed."""
    out: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """For some float features, by the view's own name, the array [keys] or [keys, width] that receives the values."""


ReadObserver = Callable[[str, Sequence[bytes], Sequence[bytes | None], int], None]
"""Called with what was read from one view: the view's name, the keys, their packed rows (None where there is none), and
the time of the request in microseconds since 1970 UTC."""


class OnlineTable:
    """The packed rows of one project in one store. Threads may share it.

    Args:
        store: the store; the caller closes it.
        project: the project's name in Feast.
        on_read: called for each view that is read, before its rows are decoded; None: nothing is called.
    """

    def __init__(self, store: Store, project: str, *, on_read: ReadObserver | None = None) -> None:
        self.store = store
        self.project = project
        self.on_read = on_read
        self.catalog = StoreCatalog(store, project)

    def delete_entities(self, join_key: str, values: Sequence[str]) -> dict[str, int]:
        """Delete the rows of some entities from every view that has the join key; ids without rows are ignored.

        A view with several join keys loses each row that has one of the values. No values delete nothing.

        Args:
            join_key: the name of the join key in the views.
            values: the ids, as text (an integer by its decimal digits); repeats are allowed.

        Returns:
            The number of deleted rows of each view, by name; views without any are left out.

        Raises:
            ConflictError: a view with several join keys has rows whose keys hold a hash instead of the ids. All other
                rows have been deleted.
            UnavailableError: the store does not answer.
        """
        deleted: dict[str, int] = {}
        hashed: dict[str, int] = {}
        for name, keys, hashed_rows in self._find_keys(join_key, values):
            deleted[name], hashed[name] = self.store.delete(keys), hashed_rows
        for name, rows in hashed.items():
            if rows:
                raise ConflictError(
                    f"view `{name}` has {rows:,} rows whose ids are so long that their keys hold only a hash, so their "
                    "entities are unknown; run `feast apply` without the view, then with it, and materialize it again"
                )
        return {name: rows for name, rows in deleted.items() if rows}

    def count_entities(self, values: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """Return how many rows of each view `delete_entities` would delete, called for each join key of `values`.

        A row is counted once. Views without such a row are left out. Rows whose keys hold a hash instead of the ids are
        not counted.

        Args:
            values: the ids, as text (an integer by its decimal digits), of each join key, by the join key's name in the
                views.
        """
        found: dict[str, set[bytes]] = {}
        for join_key, wanted in values.items():
            for name, keys, _ in self._find_keys(join_key, wanted):
                found.setdefault(name, set()).update(keys)
        rows = {name: self.store.read([list(keys)])[0] for name, keys in found.items()}
        counts = {name: sum(value is not None for value in each) for name, each in rows.items()}
        return {name: count for name, count in counts.items() if count}

    def _find_keys(self, join_key: str, values: Sequence[str]) -> Iterator[tuple[str, list[bytes], int]]:
        """Yield each view with the join key, the keys of the values, and the number of keys that hold a hash."""
        if not values:
            return
        for name, view in self.catalog.reload().views.items():
            names = [key for key, _ in view.join_keys]
            if names == [join_key]:
                # Version 0.2.0 wrote texts under their own spelling; bytes are not normalized.
                spellings = [*values, *(value.encode() for value in values)]
                keys = entity_keys.make_keys(entity_keys.make_prefix(self.project, name), [spellings])
                yield name, list(dict.fromkeys(keys)), 0
            elif join_key in names:
                yield name, *self._scan_keys(name, len(names), names.index(join_key), values)

    def _scan_keys(self, name: str, join_keys: int, index: int, values: Sequence[str]) -> tuple[list[bytes], int]:
        """Return a view's keys that have one of the values as join key `index`, and the number of hashed keys."""
        wanted = {spelling.encode() for value in values for spelling in (value, text.normalize_id(value))}
        hashed = 0

        def matches(key: bytes) -> bool:
            nonlocal hashed
            texts = entity_keys.split_key(key, join_keys)
            hashed += texts is None
            return texts is not None and texts[index] in wanted

        return self.store.list_keys(entity_keys.make_prefix(self.project, name), matches), hashed

    def make_keys(self, view: View, join_keys: Mapping[str, Sequence[Any]], count: int) -> list[bytes]:
        """Return the keys of `count` entities in a view, in the order of the values.

        Args:
            view: the view, whose name and join keys count.
            join_keys: `count` values for each join key of the view, by name; others are ignored. A KeyError if one is
                missing.
            count: the number of entities, for a view without join keys.

        Raises:
            InvalidInputError: a value is missing, or is not text, bytes or an integer.
        """
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
        """Return keys and packed rows for `Store.write`: for a repeated key only its newest row.

        A row is newer if its event timestamp is later or, for equal ones, its created timestamp; of equal rows the last
        is kept. Texts that a dictionary does not have yet are added to it in the store.

        Args:
            view: as `StoreCatalog.register_view` returned it.
            keys: the keys of n entities; repeats are allowed. The result is in their order.
            features: a column of n values for each feature, by name; a feature without a column is null, but one with
                storage "dictionary" must have a column.
            event: event timestamps, int64 [n], microseconds since 1970 UTC.
            created: created timestamps, int64 [n], microseconds since 1970 UTC; None if unknown.

        Raises:
            InvalidInputError: a value does not fit its feature's storage, or a dictionary would have more than
                MAX_DICTIONARY_SIZE texts.
            KeyError: a feature with storage "dictionary" has no column.
            UnavailableError: the store does not answer.
        """
        dictionaries = self.catalog.extend_dictionaries(view, features)
        rows = encode_rows(view.layout, features, event, created, dictionaries)
        newest = _newest(keys, event, created)
        if newest is None:
            return list(keys), rows
        return [keys[i] for i in newest], [rows[i] for i in newest]

    def read(
        self,
        requests: Sequence[ViewRequest],
        now_us: int,
        *,
        keep_stale: bool = False,
    ) -> list[DecodedRows]:
        """Read and decode the rows of some views: one result for each request, in their order, its rows as the keys.

        An absent, damaged or unknown row raises nothing; its status says so.

        Args:
            requests: the keys and fields of each view; none give an empty list.
            now_us: microseconds since 1970 UTC. A row whose event timestamp is before `now_us` minus its view's TTL is
                stale.
            keep_stale: whether stale rows keep their values. Otherwise their values are missing.

        Raises:
            InvalidInputError: an array of `out` does not fit its feature.
            UnavailableError: the store does not answer.
        """
        return self.unpack(requests, self.store.read([request.keys for request in requests]), now_us, keep_stale)

    @contextmanager
    def pipeline(self, now_us: int, *, keep_stale: bool = False) -> Iterator["RequestPipeline"]:
        """Open a pipeline for reading requests that depend on earlier rows; on exit, unreceived ones are discarded.

        Args:
            now_us: microseconds since 1970 UTC. A row whose event timestamp is before `now_us` minus its view's TTL is
                stale.
            keep_stale: whether stale rows keep their values. Otherwise their values are missing.
        """
        with self.store.pipeline() as pipeline:
            yield RequestPipeline(self, pipeline, now_us, keep_stale)

    def unpack(
        self,
        requests: Sequence[ViewRequest],
        values: Sequence[Sequence[bytes | None]],
        now_us: int,
        keep_stale: bool = False,
    ) -> list[DecodedRows]:
        """Decode the values that the store returned for the requests' keys: a result for each request, in their order.

        First `on_read`, if there is one, is called for each request. If a sound row has a layout or a dictionary code
        that this process does not know, the catalog is read again and the rows are decoded once more. A row that is
        still unknown then has the status FAILED.

        Args:
            requests: the keys and fields of each view.
            values: for each request the packed rows of its keys; None where the store has none.
            now_us: microseconds since 1970 UTC. A row whose event timestamp is before `now_us` minus its view's TTL is
                stale.
            keep_stale: whether stale rows keep their values. Otherwise their values are missing.

        Raises:
            InvalidInputError: an array of `out` does not fit its feature.
            UnavailableError: the store does not answer when the catalog is read again.
        """
        if self.on_read is not None:
            for request, rows in zip(requests, values, strict=True):
                self.on_read(request.view.name, request.keys, rows, now_us)
        decoded = self._decode(requests, values, now_us, keep_stale)
        if any(rows.is_catalog_outdated for rows in decoded):
            views = self.catalog.reload().views
            layouts = {name: view.layouts for name, view in views.items()}  # a dropped view has none
            requests = [
                replace(request, view=replace(request.view, layouts=layouts.get(request.view.name, ())))
                for request in requests
            ]
            decoded = self._decode(requests, values, now_us, keep_stale)
        return decoded

    def _decode(
        self,
        requests: Sequence[ViewRequest],
        values: Sequence[Sequence[bytes | None]],
        now_us: int,
        keep_stale: bool,
    ) -> list[DecodedRows]:
        """Decode the values of each request with the layouts and dictionaries known now."""
        return [
            decode_rows(
                rows,
                request.view.layouts_by_fingerprint,
                request.fields,
                self.catalog.dictionaries(request.view),
                oldest_us=now_us - request.view.ttl_us if request.view.ttl_us else None,
                keep_stale=keep_stale,
                out=request.out,
            )
            for request, rows in zip(requests, values, strict=True)
        ]


class RequestPipeline:
    """A `Pipeline` of view requests and decoded rows. For one thread; `OnlineTable.pipeline` opens it.

    Args:
        table: decodes the rows.
        pipeline: the store's pipeline, which the caller closes.
        now_us: microseconds since 1970 UTC. A row whose event timestamp is before `now_us` minus its view's TTL is
            stale.
        keep_stale: whether stale rows keep their values. Otherwise their values are missing.
    """

    def __init__(self, table: OnlineTable, pipeline: Pipeline, now_us: int, keep_stale: bool) -> None:
        self._table = table
        self._pipeline = pipeline
        self._now_us = now_us
        self._keep_stale = keep_stale
        self._sent: deque[ViewRequest] = deque()

    def send(self, request: ViewRequest) -> None:
        """Send a request; one without keys is allowed, and earlier replies may still be due.

        A single Redis server works on it while earlier replies are decoded. LMDB and a Redis cluster start when a
        reply is
        needed.
        """
        self._pipeline.send(request.keys)
        self._sent.append(request)

    def receive(self) -> DecodedRows:
        """Return the rows of the oldest request that has not been received yet, in the order of its keys.

        Raises:
            InvalidInputError: an array of `out` does not fit its feature.
            UnavailableError: the store does not answer.
            IndexError: every request has been received.
        """
        request = self._sent.popleft()
        (rows,) = self._table.unpack([request], [self._pipeline.receive()], self._now_us, self._keep_stale)
        return rows


def _newest(keys: Sequence[bytes], event: NDArray[np.int64], created: NDArray[np.int64] | None) -> list[int] | None:
    """Return the index of each key's newest row, sorted; None if no key repeats."""
    if len(set(keys)) == len(keys):
        return None
    created = np.full(len(keys), NO_CREATED_TIMESTAMP) if created is None else created
    order = np.lexsort((created, event)).tolist()
    return sorted({keys[i]: i for i in order}.values())
