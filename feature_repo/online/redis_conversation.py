"""A conversation with one Redis: what is asked is sent at once, and answered while the caller looks at what came first.

Whatever goes wrong with the connection, the store's own `read` is asked for what is not heard yet: it tries again as
often as the address says, and says what is wrong.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import redis

from feature_repo.online.conversation import Read, Values


class RedisConversation:
    """For one thread.

    Args:
        pool: redis-py's, of one server; `close` gives the connection back to it.
        read: of the store.
        most: keys of one MGET, during which the server serves nobody else.
    """

    def __init__(self, pool: Any, read: Read, most: int) -> None:
        self._pool = pool
        self._read = read
        self._most = most
        self._asked: deque[Sequence[bytes]] = deque()
        self._connection: Any = None
        try:
            self._connection = pool.get_connection()
        except redis.exceptions.RedisError:
            return

    def ask(self, keys: Sequence[bytes]) -> None:
        self._asked.append(keys)
        if self._connection is None or not keys:
            return
        try:
            self._connection.send_packed_command(list(map(_mget, self._parts(keys))))
        except redis.exceptions.RedisError:
            self._give_up()

    def hear(self) -> Values:
        keys = self._asked[0]
        found: Values = []
        try:
            for _ in self._parts(keys) if self._connection is not None else ():
                found += self._connection.read_response()
        except redis.exceptions.RedisError:
            self._give_up()
        if self._connection is None:
            (found,) = self._read([keys])
        self._asked.popleft()
        return found

    def close(self) -> None:
        """Give the connection back; one on which answers are still to come is closed first."""
        if self._asked and self._connection is not None:
            self._give_up()
        elif self._connection is not None:
            self._pool.release(self._connection)
            self._connection = None

    def _give_up(self) -> None:
        self._connection.disconnect()
        self._pool.release(self._connection)
        self._connection = None

    def _parts(self, keys: Sequence[bytes]) -> list[Sequence[bytes]]:
        return [keys[start : start + self._most] for start in range(0, len(keys), self._most)]


def _mget(keys: Sequence[bytes]) -> bytes:
    """The command as Redis reads it; keys of one length, as most are, are written at one go."""
    sizes = set(map(len, keys))
    if len(sizes) == 1:
        size = b"\r\n$%d\r\n" % sizes.pop()
        said = size + size.join(keys)
    else:
        said = b"".join([b"\r\n$%d\r\n%b" % (len(key), key) for key in keys])
    return b"*%d\r\n$4\r\nMGET%b\r\n" % (len(keys) + 1, said)
