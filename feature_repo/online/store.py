"""What an online store must offer: bytes by key, and one rule, that no older row takes a newer one's place."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from feature_repo.online.conversation import Conversation


class Store(Protocol):
    """Bytes by key, in one place that many processes share; pickled, it is the same place in another process."""

    on_this_machine: bool
    """Whether only processes of the machine on which it was opened reach it."""

    async def read_async(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        """`read`, without blocking the event loop."""

    async def write_async(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl: int) -> int:
        """`write`, without blocking the event loop."""

    def close(self) -> None:
        """Let go of connections."""

    def read(self, groups: Sequence[Sequence[bytes]]) -> list[list[bytes | None]]:
        """The values of each group of keys, None where there is none."""

    def conversation(self) -> AbstractContextManager[Conversation]:
        """Reading in which the next question depends on an answer."""

    def write(self, keys: Sequence[bytes], rows: Sequence[bytes], ttl: int) -> int:
        """Put packed rows, except where a newer one is; returns how many were put.

        A row is newer if its event timestamp is later, or, those being equal, its created timestamp. With a `ttl`
        (microseconds) rows may vanish once they are that old.
        """

    def delete(self, keys: Sequence[bytes]) -> int:
        """Remove keys, whatever they hold; returns how many there were."""

    def keys(self, prefix: bytes, wanted: Callable[[bytes], bool]) -> list[bytes]:
        """The keys that begin so and that `wanted` wants; all that begin so are looked through."""

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """The keys that begin so, in bounded steps between which others are served: stop when enough are seen.

        A key that is there throughout is seen at least once; one that comes or goes meanwhile may or may not be.
        """

    def drop(self, prefix: bytes) -> None:
        """Remove every key that begins so."""

    def get(self, key: bytes) -> bytes | None:
        """One value."""

    def swap(self, key: bytes, old: bytes | None, new: bytes | None) -> bool:
        """Replace a value, None being no value, unless it is no longer `old`; returns whether it was replaced."""
