"""Redis Streams, read as a consumer group (Redis 6.2 or newer).

    {prefix}:products   product_id, title, image (a path) or image_bytes, category, brand, price, updated_at
    {prefix}:clicks     user_id, product_id, event_timestamp
    {prefix}:dead       kind, id, reason, and the fields of the rejected message as field:<name>

Fields are UTF-8 text; timestamps are ISO 8601 with a time zone. Acknowledged messages stay in a stream until the sender
trims it (XADD ... MAXLEN ~).

Only one process reads (locks.py). A pending message that this process did not read therefore belongs to a process that
was killed, or to a lost reply; it is claimed at once, from any consumer. A message that was delivered more
than MAX_DELIVERIES times probably kills the process, and becomes a dead letter.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from feature_repo.errors import VitrineError
from feature_repo.online.redis_connection import RETRIES, RedisAddress
from producers.streaming.source import KINDS, LostReplyError, StreamMessage

GROUP = "vitrine"
"""Name of the consumer group."""
CONSUMER = "stream"
"""Name of the only consumer in the group."""
MAX_DELIVERIES = 50
"""A message that was delivered more often than this becomes a dead letter."""
MAX_DEAD_LETTERS = 100_000
"""Dead letters that are kept, approximately; the oldest are removed."""
IDS_PER_CALL = 1_000
"""Messages that one command acknowledges."""


class RedisSource:
    """The product and click messages of the Redis Streams with one prefix: a `MessageSource`.

    Every method raises `VitrineError` if Redis does not answer, or refuses the login or the command.
    """

    def __init__(self, address: RedisAddress, prefix: str) -> None:
        """Connect, and create the consumer groups that do not exist yet.

        Args:
            address: where Redis is.
            prefix: first part of the names of the streams, before the colon. Streams that do not exist are created. A
                new group begins with the oldest message of its stream.
        """
        self._address = address
        with address.translate_errors():
            self._client = address.connect()
            # A read is not retried: after a lost reply, the server would deliver the next messages, not the lost ones.
            self._read_client = address.connect(retries=0)
        self._failed_reads = 0
        self._prefix = prefix
        for kind in KINDS:
            try:
                with address.translate_errors():
                    self._client.xgroup_create(self._name(kind), GROUP, id="0", mkstream=True)
            except VitrineError as error:
                if "BUSYGROUP" not in str(error.__cause__):  # the group exists already
                    raise

    def read_clock(self) -> datetime:
        """Return the time of the Redis server, which assigns the ids of messages, in UTC."""
        with self._address.translate_errors():
            seconds, microseconds = self._client.time()
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)

    def read_pending(self, max_messages: int) -> Iterator[Sequence[StreamMessage]]:
        """Yield the messages that were delivered and not acknowledged: products, then clicks, each oldest first.

        Messages that were trimmed from the stream are acknowledged and skipped. Messages that were delivered more than
        MAX_DELIVERIES times are rejected, so that a batch can be empty.

        Args:
            max_messages: most messages in a batch. All messages of a batch are of one kind.
        """
        for kind in KINDS:
            start: Any = "0-0"
            while True:
                with self._address.translate_errors():
                    claimed = self._client.xautoclaim(
                        self._name(kind), GROUP, CONSUMER, min_idle_time=0, start_id=start, count=max_messages
                    )
                start, entries = claimed[0], claimed[1]
                trimmed = [id_ for id_, fields in entries if fields is None]
                if trimmed:
                    self._acknowledge(kind, trimmed)
                messages = [_make_message(kind, id_, fields, True) for id_, fields in entries if fields is not None]
                if messages:
                    yield self._reject_deadly(kind, messages)
                if start in (b"0-0", "0-0"):
                    break

    def read_new(self, max_messages: int, wait_seconds: float) -> Sequence[StreamMessage]:
        """Return new messages, oldest first within each kind; none if none arrive in time.

        The call returns as soon as there is a message, and does not wait for more.

        Args:
            max_messages: most messages of each kind (products, clicks).
            wait_seconds: how long to wait if there are no new messages; at least a millisecond.

        Raises:
            LostReplyError: the connection was lost. Messages may have been delivered; they are pending now.
            VitrineError: more than RETRIES replies in a row were lost, or Redis refuses the login or the command.
        """
        names = {self._name(kind): ">" for kind in KINDS}
        with self._address.translate_errors():
            try:
                reply = self._read_client.xreadgroup(
                    GROUP, CONSUMER, names, count=max_messages, block=max(1, int(wait_seconds * 1e3))
                )
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                self._failed_reads += 1
                if self._failed_reads > RETRIES or isinstance(error, redis.exceptions.AuthenticationError):
                    raise
                time.sleep(wait_seconds)
                raise LostReplyError from error
        self._failed_reads = 0
        kinds = {self._name(kind).encode(): kind for kind in KINDS}
        return [_make_message(kinds[name], id_, fields) for name, entries in reply or () for id_, fields in entries]

    def acknowledge(self, messages: Sequence[StreamMessage]) -> None:
        """Acknowledge messages of any kinds, in any order, or none. They are not delivered again.

        They stay in their stream. A message that is acknowledged already is ignored.
        """
        for kind in KINDS:
            self._acknowledge(kind, [message.id for message in messages if message.kind == kind])

    def reject(self, message: StreamMessage, reason: str) -> None:
        """Write a message to the stream `{prefix}:dead`, and acknowledge it.

        Args:
            message: the message. The dead letter has its kind, id and fields.
            reason: the text of the field `reason`.
        """
        letter: dict[Any, Any] = {"kind": message.kind, "id": message.id, "reason": reason}
        letter |= {f"field:{name}": value for name, value in message.fields.items()}
        with self._address.translate_errors():
            # The letter is written first: a process that is killed in between leaves two letters rather than none.
            self._client.xadd(f"{self._prefix}:dead", letter, maxlen=MAX_DEAD_LETTERS, approximate=True)
            self._client.xack(self._name(message.kind), GROUP, message.id)

    def _name(self, kind: str) -> str:
        return f"{self._prefix}:{kind}"

    def _acknowledge(self, kind: str, ids: Sequence[Any]) -> None:
        with self._address.translate_errors():
            for start in range(0, len(ids), IDS_PER_CALL):
                self._client.xack(self._name(kind), GROUP, *ids[start : start + IDS_PER_CALL])

    def _reject_deadly(self, kind: str, messages: list[StreamMessage]) -> list[StreamMessage]:
        """Reject the messages that were delivered more than MAX_DELIVERIES times, and return the others."""
        with self._address.translate_errors():
            deliveries = self._client.xpending_range(
                self._name(kind), GROUP, messages[0].id, messages[-1].id, len(messages)
            )
        deadly = {entry["message_id"].decode() for entry in deliveries if entry["times_delivered"] > MAX_DELIVERIES}
        for message in messages:
            if message.id in deadly:
                self.reject(message, f"delivered more than {MAX_DELIVERIES} times; it probably kills the process")
        return [message for message in messages if message.id not in deadly]


def _make_message(kind: str, id_: bytes, fields: dict[bytes, bytes], is_redelivered: bool = False) -> StreamMessage:
    name = id_.decode()
    texts = {key.decode("utf-8", "replace"): value for key, value in fields.items()}
    return StreamMessage(kind, name, texts, int(name.partition("-")[0]) * 1_000, is_redelivered)
