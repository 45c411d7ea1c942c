"""What a stream is, whichever carries it.

Another carrier is one class with these four methods. Kafka's: `pending` gives nothing, for a consumer without committed
offsets is given the same messages again by itself; `take` polls; `done` commits the offsets behind the messages of each
partition, which come in order; `refuse` produces to a topic of dead letters, then does the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

PRODUCTS = "products"
CLICKS = "clicks"
KINDS = (PRODUCTS, CLICKS)


@dataclass(frozen=True)
class StreamMessage:
    """What somebody sent."""

    kind: str
    """Of KINDS."""
    id: str
    """As its carrier names it, unique within its kind; later ones are greater."""
    fields: Mapping[str, bytes]
    arrived: int
    """Microseconds since 1970 UTC, by the carrier's clock."""
    again: bool = False
    """Whether it may have been worked on before."""


class LostReplyError(Exception):
    """The carrier may have delivered messages that never arrived: they are pending now."""


def describe_failure(error: Exception) -> str:
    """Why a message is a dead letter on which a step failed."""
    return f"{type(error).__name__}: {error}"[:500]


class MessageSource(Protocol):
    """Messages, at least once."""

    def pending(self, most: int) -> Iterator[Sequence[StreamMessage]]:
        """Messages that were delivered and not acknowledged, oldest first, at most `most` at a time.

        The stream asks when it has acknowledged all that it took: they are of a run that died, or never arrived.
        """

    def take(self, most: int, wait: float) -> Sequence[StreamMessage]:
        """New messages; none if none comes within `wait` seconds.

        Raises:
            ReplyLost: whether there were any is not known.
        """

    def done(self, messages: Sequence[StreamMessage]) -> None:
        """Acknowledge messages: they never come again."""

    def refuse(self, message: StreamMessage, reason: str) -> None:
        """Put a message among the dead letters, with the reason, and acknowledge it."""
