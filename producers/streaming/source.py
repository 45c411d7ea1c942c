"""The interface of a message stream.

Another carrier is one class with the four methods of `MessageSource`. For Kafka: `read_pending` yields nothing, because
a consumer without committed offsets receives the same messages again; `read_new` polls; `acknowledge` commits the
offsets after the messages of each partition, which arrive in order; `reject` produces to a dead-letter topic and then
does the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

PRODUCTS = "products"
CLICKS = "clicks"
KINDS = (PRODUCTS, CLICKS)
"""Kinds of messages. Of one read, the products are processed before the clicks."""


@dataclass(frozen=True)
class StreamMessage:
    """One message of a stream."""

    kind: str
    """One of KINDS."""
    id: str
    """The carrier's id, unique within the kind; a later message has a greater one."""
    fields: Mapping[str, bytes]
    """Field name to its value as it was sent, not decoded or checked."""
    arrived_us: int
    """When the carrier received the message, by its clock: microseconds since 1970 UTC."""
    is_redelivered: bool = False
    """Whether an earlier run may have processed the message."""


class LostReplyError(Exception):
    """The reply to a read was lost. Messages may have been delivered; `read_pending` yields them."""


def describe_failure(error: Exception) -> str:
    """Return the reason for rejecting a message that raised `error`: `CLASS: TEXT`, cut to 500 characters."""
    return f"{type(error).__name__}: {error}"[:500]


class MessageSource(Protocol):
    """A stream that delivers each message at least once."""

    def read_pending(self, max_messages: int) -> Iterator[Sequence[StreamMessage]]:
        """Yield the messages that were delivered and not acknowledged, in batches; each kind oldest first.

        The stream calls this after it has acknowledged everything that it read. The messages are then those of a run
        that was killed, or of a lost reply. Nothing is yielded if there are none; a batch may be empty.

        Args:
            max_messages: most messages in a batch.
        """

    def read_new(self, max_messages: int, wait_seconds: float) -> Sequence[StreamMessage]:
        """Return new messages, each kind oldest first; none if none arrive in time.

        A message is not returned again, unless it is not acknowledged; then `read_pending` yields it.

        Args:
            max_messages: most messages of each kind.
            wait_seconds: how long to wait if there are no new messages.

        Raises:
            LostReplyError: it is unknown whether messages were delivered.
        """

    def acknowledge(self, messages: Sequence[StreamMessage]) -> None:
        """Acknowledge messages, of any kinds and in any order, or none. They are not delivered again."""

    def reject(self, message: StreamMessage, reason: str) -> None:
        """Write a message to the dead letters, and acknowledge it.

        Args:
            message: the message that cannot be processed.
            reason: a line for people that says why; it is stored with the message.
        """
