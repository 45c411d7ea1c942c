"""What an online store must offer: bytes by key, and one rule: an older row never replaces a newer one.

A `Pipeline` overlaps the round trips of requests whose keys depend on earlier replies:

    with store.pipeline() as pipeline:
        pipeline.send([user_key])
        pipeline.send(candidate_keys)           # travels while the user's row is decoded
        (user_row,) = pipeline.receive()
        pipeline.send(keys_named_by(user_row))
        candidate_rows, more_rows = pipeline.receive(), pipeline.receive()
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

Values = list[bytes | None]
"""A value for each requested key, in their order; None where the store has no such key."""
Read = Callable[[Sequence[Sequence[bytes]]], list[Values]]
"""The type of `Store.read`: groups of keys -> the values of each group."""


class Pipeline(Protocol):
    """Requests sent ahead of their replies, which come in the order of the requests. For one thread."""

    def send(self, keys: Sequence[bytes]) -> None:
        """Request the values of the keys; repeats and an empty sequence are allowed."""

    def receive(self) -> Values:
        """Return the values of the oldest request that has not been received yet, in the order of its keys.

        Raises:
            UnavailableError: the store does not answer.
            IndexError: every request has been received.
        """


class DeferredPipeline:
    """A pipeline that sends the queued requests when the first reply is needed.

    For stores that gain nothing by sending earlier.

    Args:
        read: the store's `read`; it is called once for all queued requests.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._queued: list[Sequence[bytes]] = []
        self._replies: deque[Values] = deque()

    def send(self, keys: Sequence[bytes]) -> None:
        """Queue a request; nothing is sent yet. Repeated keys and an empty sequence are allowed."""
        self._queued.append(keys)

    def receive(self) -> Values:
        """Return the values of the oldest request that has not been received yet, in the order of its keys.

        Raises:
            UnavailableError: the store does not answer. The requests stay queued.
            IndexError: every request has been received.
        """
        if not self._replies:
            self._replies.extend(self._read(self._queued))
            self._queued = []
        return self._replies.popleft()


class Store(Protocol):
    """Bytes by key, shared by many processes. A pickled copy is a client of the same store.

    Every method raises UnavailableError if the store does not answer.
    """

    is_local: bool
    """Whether only processes on this machine can reach the store."""

    def read(self, groups: Sequence[Sequence[bytes]]) -> list[Values]:
        """Return the values of each group of keys, in the order of the keys; None for a missing key.

        Repeated keys and empty groups are allowed.
        """

    async def read_async(self, groups: Sequence[Sequence[bytes]]) -> list[Values]:
        """Return what `read` returns, without blocking the event loop."""

    def pipeline(self) -> AbstractContextManager[Pipeline]:
        """Return a pipeline; on exit, requests without a received reply are discarded."""

    def write(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl_us: int) -> int:
        """Put packed rows, except where a newer one is stored; return how many were put.

        A row is newer if its event timestamp is later or, for equal event timestamps, if its created timestamp is. A
        row with both timestamps equal to the stored ones replaces it. When this returns, the rows can be read.

        Args:
            keys: the keys to write, none of them twice; may be empty.
            rows: the packed row of each key.
            ttl_us: microseconds after its event timestamp from which on a row may expire; 0 keeps rows.
        """

    async def write_async(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl_us: int) -> int:
        """Put packed rows as `write` does, without blocking the event loop; return how many were put.

        Args:
            keys: the keys to write, none of them twice; may be empty.
            rows: the packed row of each key.
            ttl_us: microseconds after its event timestamp from which on a row may expire; 0 keeps rows.
        """

    def delete(self, keys: Sequence[bytes]) -> int:
        """Delete keys, whatever their values; missing keys are ignored. Return how many were deleted, each once."""

    def delete_prefix(self, prefix: bytes) -> None:
        """Delete every key that starts with the prefix; nothing happens if there is none."""

    def list_keys(self, prefix: bytes, predicate: Callable[[bytes], bool]) -> list[bytes]:
        """Return the keys that start with the prefix and for which `predicate` returns true, in no particular order.

        `predicate` is called with every key that starts with the prefix.
        """

    def scan_keys(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield the keys that start with the prefix in bounded steps, between which the store serves others.

        Stop iterating when enough keys were seen. A key that exists throughout is yielded at least once; a key that is
        added or deleted meanwhile may or may not be.
        """

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if there is none."""

    def compare_and_swap(self, key: bytes, old: bytes | None, new: bytes | None) -> bool:
        """Replace the value `old` of a key by `new`; return false, and change nothing, if the value is not `old`.

        No other client can change the value between the comparison and the change. None means no value: as `old`, the
        key must not exist; as `new`, it is deleted.
        """

    def close(self) -> None:
        """Close the connections. A store without connections does nothing."""
