"""Redis Streams, by a consumer group (Redis 6.2 or newer).

    {prefix}:products   product_id, title, image (a path) or image_bytes, category, brand, price, updated_at
    {prefix}:clicks     user_id, product_id, event_timestamp
    {prefix}:dead       kind, id, reason, and the message's own fields as field:<name>

A field is text as UTF-8; times are ISO 8601 with a zone. Who sends decides how long a stream grows (XADD ... MAXLEN ~):
acknowledged messages stay until then.

One process reads (locks.py), so whatever the group has pending that this one has not is of one that died, or was in a
reply that was lost with its connection: it is claimed at once, whoever took it. A message that was delivered
MAX_DELIVERIES times is what kills the process: a dead letter.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import redis

from feature_repo.errors import VitrineError
from feature_repo.online.redis_connection import RETRIES, RedisAddress
from producers.streaming.source import KINDS, LostReplyError, StreamMessage

GROUP = "vitrine"
CONSUMER = "stream"
MAX_DELIVERIES = 50
MOST_DEAD = 100_000
"""Dead letters that are kept, about."""


class RedisSource:
    """Messages of the streams of one prefix.

    Raises:
        VitrineError: from every method, where Redis does not answer.
    """

    def __init__(self, address: RedisAddress, prefix: str) -> None:
        self._address = address
        with address.translate_errors():
            self._client = address.connect()
            # Asked once more after a lost reply, the server would give the next messages and not the lost ones.
            self._taker = address.connect(retries=0)
        self._lost = 0
        self._prefix = prefix
        for kind in KINDS:
            try:
                with address.translate_errors():
                    self._client.xgroup_create(self._name(kind), GROUP, id="0", mkstream=True)
            except VitrineError as error:
                if "BUSYGROUP" not in str(error.__cause__):  # it is there already
                    raise

    def pending(self, most: int) -> Iterator[Sequence[StreamMessage]]:
        for kind in KINDS:
            start: Any = "0-0"
            while True:
                with self._address.translate_errors():
                    claimed = self._client.xautoclaim(
                        self._name(kind), GROUP, CONSUMER, min_idle_time=0, start_id=start, count=most
                    )
                start, entries = claimed[0], claimed[1]
                gone = [id_ for id_, fields in entries if fields is None]  # trimmed from the stream meanwhile
                if gone:
                    self._acknowledge(kind, gone)
                found = [_message(kind, id_, fields, True) for id_, fields in entries if fields is not None]
                if found:
                    yield self._without_killers(kind, found)
                if start in (b"0-0", "0-0"):
                    break

    def take(self, most: int, wait: float) -> Sequence[StreamMessage]:
        names = {self._name(kind): ">" for kind in KINDS}
        with self._address.translate_errors():
            try:
                found = self._taker.xreadgroup(GROUP, CONSUMER, names, count=most, block=max(1, int(wait * 1e3)))
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                self._lost += 1
                if self._lost > RETRIES or isinstance(error, redis.exceptions.AuthenticationError):
                    raise
                time.sleep(wait)
                raise LostReplyError from error
        self._lost = 0
        kinds = {self._name(kind).encode(): kind for kind in KINDS}
        return [_message(kinds[name], id_, fields) for name, entries in found or () for id_, fields in entries]

    def done(self, messages: Sequence[StreamMessage]) -> None:
        for kind in KINDS:
            self._acknowledge(kind, [message.id for message in messages if message.kind == kind])

    def refuse(self, message: StreamMessage, reason: str) -> None:
        letter: dict[Any, Any] = {"kind": message.kind, "id": message.id, "reason": reason}
        letter |= {f"field:{name}": value for name, value in message.fields.items()}
        with self._address.translate_errors():
            # The letter first: if the process dies in between there are two letters, and never none.
            self._client.xadd(f"{self._prefix}:dead", letter, maxlen=MOST_DEAD, approximate=True)
            self._client.xack(self._name(message.kind), GROUP, message.id)

    def _name(self, kind: str) -> str:
        return f"{self._prefix}:{kind}"

    def _acknowledge(self, kind: str, ids: Sequence[Any]) -> None:
        with self._address.translate_errors():
            for start in range(0, len(ids), 1_000):
                self._client.xack(self._name(kind), GROUP, *ids[start : start + 1_000])

    def _without_killers(self, kind: str, found: list[StreamMessage]) -> list[StreamMessage]:
        with self._address.translate_errors():
            said = self._client.xpending_range(self._name(kind), GROUP, found[0].id, found[-1].id, len(found))
        often = {one["message_id"].decode() for one in said if one["times_delivered"] > MAX_DELIVERIES}
        for message in found:
            if message.id in often:
                self.refuse(message, f"delivered more than {MAX_DELIVERIES} times: each time the process died")
        return [message for message in found if message.id not in often]


def _message(kind: str, id_: bytes, fields: dict[bytes, bytes], again: bool = False) -> StreamMessage:
    name = id_.decode()
    named = {key.decode("utf-8", "replace"): value for key, value in fields.items()}
    return StreamMessage(kind, name, named, int(name.partition("-")[0]) * 1_000, again)
