"""Packed rows in Redis: one string per entity and view, compared and put by a script on the server.

Reading n entities of a view is one MGET on one server. On a cluster the keys of a command must share a slot, so keys
are grouped by slot and all commands go to their nodes in one pipeline; scripts likewise. Rows of a view with a TTL
expire STALE_FOR after it: in between a reader is told that a row is stale, later that there is none. Rows of a view
whose TTL is longer than LONG do not: the server looks a key that expires up twice at each read, in a fifth more time.
"""

import asyncio
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from feature_repo.online.conversation import Collected, Conversation
from feature_repo.online.redis_connection import RedisAddress
from feature_repo.online.redis_conversation import RedisConversation

ROWS_PER_CALL = 256
"""Rows of one script call: the server does nothing else meanwhile, some 1 ms."""
CALLS_PER_TRIP = 64
KEYS_PER_CALL = 4096
KEYS_PER_STEP = 1000
"""Keys that the server looks at in one step of a scan, well under 1 ms."""
STALE_FOR = 86_400_000
"""Milliseconds."""
LONG = 10 * 365 * 86_400_000_000
"""Microseconds."""
_PUT_NEWER = (Path(__file__).parent / "put_newer.lua").read_text()
_SWAP = (Path(__file__).parent / "swap.lua").read_text()

Command = tuple[Any, ...]


class RedisStore:
    """Bytes by key in one Redis. Threads and event loops may share it.

    Args:
        longest_life: seconds after its writing when any row goes at the latest; None: its view's TTL decides.
    """

    on_this_machine = False

    def __init__(self, address: RedisAddress, *, longest_life: int | None = None) -> None:
        self.address = address
        self._longest_life = longest_life
        with address.explained():
            self.client = address.connect()
        self._async_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
        self._script = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RedisStore, longest_life=self._longest_life), (self.address,)

    def read(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        commands, places = self._mgets(groups)
        return _in_place(groups, places, self._run(commands))

    async def read_async(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        """`read`, without blocking the event loop."""
        commands, places = self._mgets(groups)
        return _in_place(groups, places, await self._run_async(commands))

    def conversation(self) -> AbstractContextManager[Conversation]:
        if self.address.is_cluster:
            return nullcontext(Collected(self.read))
        return closing(RedisConversation(self.client.connection_pool, self.read, KEYS_PER_CALL))

    def write(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl: int) -> int:
        put = 0
        for trip in self._puts(keys, rows, ttl):
            put += sum(self._run(trip))
        return put

    async def write_async(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl: int) -> int:
        """`write`, without blocking the event loop."""
        put = 0
        for trip in self._puts(keys, rows, ttl):
            put += sum(await self._run_async(trip))
        return put

    def close(self) -> None:
        """Close the connections, those of event loops excepted: they go with their loops."""
        self.client.close()

    def delete(self, keys: Sequence[bytes]) -> int:
        parts = _parts(keys, KEYS_PER_CALL)
        return sum(sum(self._run([("UNLINK", *same) for same in self._by_slot(part)])) for part in parts)

    def keys(self, prefix: bytes, wanted: Callable[[bytes], bool]) -> list[bytes]:
        with self.address.explained():
            return list(filter(wanted, self.client.scan_iter(match=prefix + b"*", count=KEYS_PER_STEP)))

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        found = self.client.scan_iter(match=prefix + b"*", count=KEYS_PER_STEP)
        while True:
            with self.address.explained():
                step = list(islice(found, KEYS_PER_STEP))
            if not step:
                return
            yield step

    def drop(self, prefix: bytes) -> None:
        self.delete(self.keys(prefix, lambda key: True))

    def get(self, key: bytes) -> bytes | None:
        return self._run([("GET", key)])[0]

    def swap(self, key: bytes, old: bytes | None, new: bytes | None) -> bool:
        return bool(self._run([("EVAL", _SWAP, 1, key, old or b"", new or b"")])[0])

    def _mgets(self, groups: Sequence[Sequence[bytes]]) -> tuple[list[Command], list[tuple[int, list[int] | slice]]]:
        """MGETs for the groups, and of each command the group and the places in it that it answers."""
        commands: list[Command] = []
        places: list[tuple[int, list[int] | slice]] = []
        for group, keys in enumerate(groups):
            for start in range(0, len(keys), KEYS_PER_CALL):
                part = keys[start : start + KEYS_PER_CALL]
                if not self.address.is_cluster:
                    commands.append(("MGET", *part))
                    places.append((group, slice(start, start + len(part))))
                    continue
                slots: dict[int, list[int]] = {}
                for i, key in enumerate(part, start):
                    slots.setdefault(key_slot(key), []).append(i)
                commands += [("MGET", *(keys[i] for i in same)) for same in slots.values()]
                places += [(group, same) for same in slots.values()]
        return commands, places

    def _puts(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl: int) -> list[list[Command]]:
        """Script calls for the rows, those of a round trip together."""
        times = ttl // 1000 if ttl <= LONG else 0, STALE_FOR, 1000 * (self._longest_life or 0)
        self._load()
        places = self._by_slot(range(len(keys)), keys)
        calls = [
            ("EVALSHA", self._script, len(part), *(keys[i] for i in part), *times, *(rows[i] for i in part))
            for same in places
            for part in _parts(same, ROWS_PER_CALL)
        ]
        size = CALLS_PER_TRIP * ROWS_PER_CALL if self.address.is_cluster else CALLS_PER_TRIP
        return [calls[start : start + size] for start in range(0, len(calls), size)]

    def _by_slot(self, items: Sequence[Any], keys: Sequence[bytes] | None = None) -> list[Sequence[Any]]:
        """Items in groups whose keys share a slot: all together where there are no slots."""
        if not self.address.is_cluster:
            return [items] if len(items) else []
        slots: dict[int, list[Any]] = {}
        for item in items:
            slots.setdefault(key_slot(item if keys is None else keys[item]), []).append(item)
        return list(slots.values())

    def _load(self) -> None:
        if not self._script:
            with self.address.explained():
                self._script = self.client.script_load(_PUT_NEWER)

    def _run(self, commands: list[Command]) -> list[Any]:
        """The replies, in order; a server that has forgotten the script is taught it again."""
        with self.address.explained():
            try:
                return self._pipelined(commands)
            except redis.exceptions.NoScriptError:
                self.client.script_load(_PUT_NEWER)
                return self._pipelined(commands)

    def _pipelined(self, commands: list[Command]) -> list[Any]:
        if len(commands) == 1:
            return [self.client.execute_command(*commands[0])]
        with self.client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return pipe.execute()

    async def _run_async(self, commands: list[Command]) -> list[Any]:
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            client = self._async_clients[loop] = self.address.connect_async()
        with self.address.explained():
            try:
                return await _pipelined_async(client, commands)
            except redis.exceptions.NoScriptError:
                await asyncio.to_thread(self.client.script_load, _PUT_NEWER)
                return await _pipelined_async(client, commands)


async def _pipelined_async(client: Any, commands: list[Command]) -> list[Any]:
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return await pipe.execute()


def _in_place(
    groups: Sequence[Sequence[bytes]], places: Sequence[tuple[int, list[int] | slice]], replies: Sequence[Any]
) -> list[list[bytes | None]]:
    """Replies as the values of each group's keys."""
    found: list[list[bytes | None]] = [[None] * len(keys) for keys in groups]
    for (group, place), values in zip(places, replies, strict=True):
        if isinstance(place, slice):
            found[group][place] = values
        else:
            for i, value in zip(place, values, strict=True):
                found[group][i] = value
    return found


def _parts(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
