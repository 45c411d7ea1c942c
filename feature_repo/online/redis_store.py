"""The online store in Redis: one string per entity and view, compared and put by a script on the server.

One server reads n entities of a view with one MGET. On a cluster the keys of a command must share a slot, so keys are
grouped by slot and the commands go to their nodes in one pipeline; scripts likewise.

Rows of a view with a TTL expire STALE_MILLISECONDS after it: until then a reader sees a stale row, afterwards none.
Rows of a view whose TTL exceeds LONG_TTL_US do not expire: reading a key with an expiry costs the server a fifth more
time. put_newer.lua and swap.lua, beside this file, run on the server.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from feature_repo.online.redis_connection import RedisAddress
from feature_repo.online.store import DeferredPipeline, Pipeline, Read, Values

ROWS_PER_CALL = 256
"""Rows of one script call, which blocks the server for about 1 ms."""
CALLS_PER_TRIP = 64
"""Script calls that are sent in one round trip, at most."""
KEYS_PER_CALL = 4096
"""Keys of one MGET or UNLINK, at most."""
KEYS_PER_STEP = 1000
"""Keys that the server visits in one step of a scan, in well under 1 ms."""
STALE_MILLISECONDS = 86_400_000
"""How long a row is kept after its view's TTL: a day."""
LONG_TTL_US = 10 * 365 * 86_400_000_000
"""Rows of a view with a longer TTL, in microseconds, do not expire: ten years."""
_PUT_NEWER = (Path(__file__).parent / "put_newer.lua").read_text()
_SWAP = (Path(__file__).parent / "swap.lua").read_text()

Command = tuple[Any, ...]


class RedisStore:
    """A `Store` in one Redis. Threads and event loops may share it.

    Methods that ask the server raise UnavailableError if it does not answer or refuses the command.

    Args:
        address: where the Redis is.
        max_ttl_seconds: every row expires at most this long after it is written; None: only its view's TTL counts.

    Raises:
        InvalidInputError: an option of the address is not valid for its kind.
        UnavailableError: a cluster does not answer; other kinds connect at first use.
    """

    is_local = False

    def __init__(self, address: RedisAddress, *, max_ttl_seconds: int | None = None) -> None:
        self.address = address
        self._max_ttl_seconds = max_ttl_seconds
        with address.translate_errors():
            self.client = address.connect()
        self._async_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
        self._script_hash = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RedisStore, max_ttl_seconds=self._max_ttl_seconds), (self.address,)

    def read(self, groups: Sequence[Sequence[bytes]]) -> list[Values]:
        """Return the values of each group of keys, in their order; None for a missing key.

        Repeated keys and empty groups are allowed. The groups are not of one moment: another client may write between
        two commands.
        """
        commands, positions = self._build_mgets(groups)
        return _arrange_replies(groups, positions, self._run(commands))

    async def read_async(self, groups: Sequence[Sequence[bytes]]) -> list[Values]:
        """Return the values of each group of keys, as `read` does, without blocking the event loop."""
        commands, positions = self._build_mgets(groups)
        return _arrange_replies(groups, positions, await self._run_async(commands))

    def pipeline(self) -> AbstractContextManager[Pipeline]:
        """Return a pipeline on one connection; on exit, requests without a received reply are discarded.

        On a cluster, requests are sent when the first reply is needed.
        """
        if self.address.is_cluster:
            return nullcontext(DeferredPipeline(self.read))
        return closing(RedisPipeline(self.client.connection_pool, self.read, KEYS_PER_CALL))

    def write(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl_us: int) -> int:
        """Put packed rows, except where a newer one is stored; return how many were put.

        A row with the same two timestamps as the stored one replaces it. ROWS_PER_CALL rows at most, on a cluster of
        one slot, are put atomically. If a later call fails, earlier ones stay.

        Args:
            keys: no key may occur twice.
            rows: the packed row of each key.
            ttl_us: the view's TTL in microseconds; 0: none. A row expires STALE_MILLISECONDS after its TTL has ended,
                or after now if that is later, unless the TTL is longer than LONG_TTL_US. If the store has
                `max_ttl_seconds`, it expires that long after now at the latest.
        """
        return sum(sum(self._run(trip)) for trip in self._build_puts(keys, rows, ttl_us))

    async def write_async(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl_us: int) -> int:
        """Put the rows that `write` puts and return how many were put, without blocking the event loop.

        The first write of a store loads the script on the server, which blocks for one round trip.

        Args:
            keys: no key may occur twice; may be empty.
            rows: the packed row of each key.
            ttl_us: the view's TTL in microseconds; 0: none.
        """
        count = 0
        for trip in self._build_puts(keys, rows, ttl_us):
            count += sum(await self._run_async(trip))
        return count

    def close(self) -> None:
        """Close the connections, except those of event loops, which close with their loops."""
        self.client.close()

    def delete(self, keys: Sequence[bytes]) -> int:
        """Delete keys, KEYS_PER_CALL in each command; missing keys are ignored. Return how many were deleted."""
        return sum(
            sum(self._run([("UNLINK", *group) for group in self._group_by_slot(part)]))
            for part in _split(keys, KEYS_PER_CALL)
        )

    def list_keys(self, prefix: bytes, predicate: Callable[[bytes], bool]) -> list[bytes]:
        """Return the keys that start with the prefix and for which `predicate` returns true, in no particular order.

        The server visits all of its keys, KEYS_PER_STEP at a time. While keys are added or deleted, one may be listed
        twice. `predicate` is called with every key that starts with the prefix. The prefix must not have the characters
        of a Redis pattern: `*`, `?`, `[` or a backslash.
        """
        with self.address.translate_errors():
            return list(filter(predicate, self.client.scan_iter(match=prefix + b"*", count=KEYS_PER_STEP)))

    def scan_keys(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield the keys that start with the prefix in no particular order, KEYS_PER_STEP at most in each step.

        A key that exists throughout is yielded at least once, perhaps twice; one that is added or deleted meanwhile may
        or may not be. Nothing is yielded if there are no such keys. The prefix must not have the characters of a Redis
        pattern: `*`, `?`, `[` or a backslash.
        """
        keys = self.client.scan_iter(match=prefix + b"*", count=KEYS_PER_STEP)
        while True:
            with self.address.translate_errors():
                step = list(islice(keys, KEYS_PER_STEP))
            if not step:
                return
            yield step

    def delete_prefix(self, prefix: bytes) -> None:
        """Delete every key that starts with the prefix. The server visits all of its keys.

        The prefix must not have the characters of a Redis pattern: `*`, `?`, `[` or a backslash.
        """
        self.delete(self.list_keys(prefix, lambda key: True))

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if there is none."""
        return self._run([("GET", key)])[0]

    def compare_and_swap(self, key: bytes, old: bytes | None, new: bytes | None) -> bool:
        """Replace the value `old` of a key by `new`; return false, and change nothing, if the value is not `old`.

        None means no value: as `old`, the key must not exist; as `new`, it is deleted. An empty value counts as none.
        If the connection is lost, the command is sent again; this then returns false if the first one had replaced the
        value already.
        """
        return bool(self._run([("EVAL", _SWAP, 1, key, old or b"", new or b"")])[0])

    def _build_mgets(
        self, groups: Sequence[Sequence[bytes]]
    ) -> tuple[list[Command], list[tuple[int, list[int] | slice]]]:
        """Return MGETs for the groups and, for each command, its group and the positions of its keys in the group."""
        commands: list[Command] = []
        positions: list[tuple[int, list[int] | slice]] = []
        for group, keys in enumerate(groups):
            for start in range(0, len(keys), KEYS_PER_CALL):
                part = keys[start : start + KEYS_PER_CALL]
                if not self.address.is_cluster:
                    commands.append(("MGET", *part))
                    positions.append((group, slice(start, start + len(part))))
                    continue
                slots: dict[int, list[int]] = {}
                for i, key in enumerate(part, start):
                    slots.setdefault(key_slot(key), []).append(i)
                commands += [("MGET", *(keys[i] for i in indexes)) for indexes in slots.values()]
                positions += [(group, indexes) for indexes in slots.values()]
        return commands, positions

    def _build_puts(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl_us: int) -> list[list[Command]]:
        """Return script calls for the rows, in lists that are one round trip each."""
        ttl_milliseconds = ttl_us // 1000 if ttl_us <= LONG_TTL_US else 0
        limits = ttl_milliseconds, STALE_MILLISECONDS, 1000 * (self._max_ttl_seconds or 0)
        self._load_script()
        calls = [
            ("EVALSHA", self._script_hash, len(part), *(keys[i] for i in part), *limits, *(rows[i] for i in part))
            for group in self._group_by_slot(range(len(keys)), keys)
            for part in _split(group, ROWS_PER_CALL)
        ]
        return _split(calls, CALLS_PER_TRIP * ROWS_PER_CALL if self.address.is_cluster else CALLS_PER_TRIP)

    def _group_by_slot(self, items: Sequence[Any], keys: Sequence[bytes] | None = None) -> list[Sequence[Any]]:
        """Return the items in groups whose keys share a slot, in one group if this is no cluster.

        Args:
            items: keys or, if `keys` is given, indexes into it.
            keys: the keys that `items` index.
        """
        if not self.address.is_cluster:
            return [items] if len(items) else []
        slots: dict[int, list[Any]] = {}
        for item in items:
            slots.setdefault(key_slot(item if keys is None else keys[item]), []).append(item)
        return list(slots.values())

    def _load_script(self) -> None:
        """Load put_newer.lua on the server, once for this store."""
        if not self._script_hash:
            with self.address.translate_errors():
                self._script_hash = self.client.script_load(_PUT_NEWER)

    def _run(self, commands: list[Command]) -> list[Any]:
        """Return the replies in order. A server that lost the script gets it again, once."""
        with self.address.translate_errors():
            try:
                return self._send(commands)
            except redis.exceptions.NoScriptError:
                self.client.script_load(_PUT_NEWER)
                return self._send(commands)

    def _send(self, commands: list[Command]) -> list[Any]:
        """Return the replies of the commands in order, sent in one round trip on one server."""
        if len(commands) == 1:
            return [self.client.execute_command(*commands[0])]
        with self.client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return pipeline.execute()

    async def _run_async(self, commands: list[Command]) -> list[Any]:
        """Do the same as `_run`, with a client for the running event loop."""
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            client = self._async_clients[loop] = self.address.connect_async()
        with self.address.translate_errors():
            try:
                return await _send_async(client, commands)
            except redis.exceptions.NoScriptError:
                await asyncio.to_thread(self.client.script_load, _PUT_NEWER)
                return await _send_async(client, commands)


class RedisPipeline:
    """A pipeline on one connection: each request is sent at once, and the server answers it while the caller works.

    If the connection fails, `receive` calls the store's `read` instead, which retries and names the failure.

    Args:
        pool: redis-py's connection pool of one server; `close` returns the connection to it.
        read: the store's `read`.
        keys_per_call: keys of one MGET, during which the server serves nobody else.
    """

    def __init__(self, pool: Any, read: Read, keys_per_call: int) -> None:
        self._pool = pool
        self._read = read
        self._keys_per_call = keys_per_call
        self._sent: deque[Sequence[bytes]] = deque()
        self._connection: Any = None
        try:
            self._connection = pool.get_connection()
        except redis.exceptions.RedisError:
            return

    def send(self, keys: Sequence[bytes]) -> None:
        """Send the request now; repeated keys and an empty sequence are allowed.

        If the connection is lost, nothing is raised: `receive` reads the keys again.
        """
        self._sent.append(keys)
        if self._connection is None or not keys:
            return
        try:
            self._connection.send_packed_command(list(map(_encode_mget, _split(keys, self._keys_per_call))))
        except redis.exceptions.RedisError:
            self._drop_connection()

    def receive(self) -> Values:
        """Return the values of the oldest request that has not been received yet, in the order of its keys.

        Raises:
            UnavailableError: the store does not answer, also when it is asked again.
            IndexError: every request has been received.
        """
        keys = self._sent[0]
        values: Values = []
        try:
            for _ in _split(keys, self._keys_per_call) if self._connection is not None else ():
                values += self._connection.read_response()
        except redis.exceptions.RedisError:
            self._drop_connection()
        if self._connection is None:
            (values,) = self._read([keys])
        self._sent.popleft()
        return values

    def close(self) -> None:
        """Return the connection to the pool, closed if replies are still to come."""
        if self._connection is None:
            return
        if self._sent:
            self._drop_connection()
        else:
            self._pool.release(self._connection)
            self._connection = None

    def _drop_connection(self) -> None:
        """Close the connection and give it back to the pool; later requests are read by the store."""
        self._connection.disconnect()
        self._pool.release(self._connection)
        self._connection = None


async def _send_async(client: Any, commands: list[Command]) -> list[Any]:
    """Return the replies of the commands in order, sent in one round trip."""
    async with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute()


def _encode_mget(keys: Sequence[bytes]) -> bytes:
    """Return the MGET command in Redis's protocol. Keys of one length, the usual case, are joined in one call."""
    sizes = set(map(len, keys))
    if len(sizes) == 1:
        head = b"\r\n$%d\r\n" % sizes.pop()
        arguments = head + head.join(keys)
    else:
        arguments = b"".join([b"\r\n$%d\r\n%b" % (len(key), key) for key in keys])
    return b"*%d\r\n$4\r\nMGET%b\r\n" % (len(keys) + 1, arguments)


def _arrange_replies(
    groups: Sequence[Sequence[bytes]], positions: Sequence[tuple[int, list[int] | slice]], replies: Sequence[Any]
) -> list[Values]:
    """Return the replies of `_build_mgets` as the values of each group's keys."""
    result: list[Values] = [[None] * len(keys) for keys in groups]
    for (group, indexes), values in zip(positions, replies, strict=True):
        if isinstance(indexes, slice):
            result[group][indexes] = values
        else:
            for i, value in zip(indexes, values, strict=True):
                result[group][i] = value
    return result


def _split(items: Sequence[Any], size: int) -> list[Any]:
    """Return the items in consecutive parts of `size`, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]
