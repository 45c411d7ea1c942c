"""Reading in which the next question depends on an answer: ask, hear, ask on, without waiting in between.

talk.ask(user)
talk.ask(candidates)     # is on its way while the user's row is looked at
row = talk.hear()
talk.ask(named_by(row))
rows, more = talk.hear(), talk.hear()
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

Values = list[bytes | None]
Read = Callable[[Sequence[Sequence[bytes]]], list[Values]]


class Conversation(Protocol):
    """For one thread."""

    def ask(self, keys: Sequence[bytes]) -> None:
        """Ask for the values of these keys."""

    def hear(self) -> Values:
        """The values of the keys asked for first among those not heard yet."""


class Collected:
    """Asks when something is to be heard, for all that was asked by then: for stores that gain nothing by more."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._asked: list[Sequence[bytes]] = []
        self._found: deque[Values] = deque()

    def ask(self, keys: Sequence[bytes]) -> None:
        self._asked.append(keys)

    def hear(self) -> Values:
        if not self._found:
            self._found.extend(self._read(self._asked))
            self._asked = []
        return self._found.popleft()
