"""Messages that Redis delivered in a reply that was lost are processed nevertheless."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import pytest
import redis

from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.online.redis_connection import parse_url
from producers.streaming.metrics import StreamMetrics
from producers.streaming.open_stream import open_stream
from producers.streaming.redis_source import RedisSource
from tests.producers.streaming.running import PREFIX, Shop, _now

TIMEOUT_SECONDS = 20


@contextmanager
def drop_reply(port: int, mark: bytes, then: Callable[[], None]) -> Iterator[int]:
    """Proxy a server, and drop the first reply that contains `mark` together with its connection; return the port.

    Args:
        port: port of the server.
        mark: bytes of the reply to drop.
        then: called when the reply is dropped.
    """
    armed = True

    def pass_on(source: socket.socket, target: socket.socket, is_reply: bool) -> None:
        nonlocal armed
        with suppress(OSError):
            while data := source.recv(1 << 20):
                if is_reply and armed and mark in data:
                    armed = False
                    then()
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                ours, _ = listener.accept()
                theirs = socket.create_connection(("127.0.0.1", port))
                for way in ((ours, theirs, False), (theirs, ours, True)):
                    threading.Thread(target=pass_on, args=way, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_messages_of_a_lost_reply_are_processed_before_later_messages(shop: Shop) -> None:
    shop.send_click(1, user_id="u", product_id="lost")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    sent = threading.Event()

    def then() -> None:
        shop.send_click(2, user_id="u", product_id="next")
        sent.set()

    with drop_reply(shop.server.port, b"lost", then) as port:
        source = RedisSource(parse_url(f"redis://127.0.0.1:{port}"), PREFIX)
        with open_stream(shop.settings, source, shop.options(commit_seconds=0.2), StreamMetrics(None), _now) as stream:
            stream.run(lambda: (sent.is_set() and not shop.left()) or time.monotonic() > deadline)
    assert shop.left() == 0
    assert shop.dead() == []
    clicks = delta.read(shop.settings.table("user_interest")).sort_by("clicks")
    assert clicks["recent_products"].to_pylist() == [["lost"], ["next", "lost"]]


def test_messages_that_were_delivered_and_not_processed_are_processed_after_a_commit(shop: Shop) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    sent = False

    def stop() -> bool:
        nonlocal sent
        if not sent:
            shop.send_product(1)
            shop.deliver()
            sent = True
        return not shop.left() or time.monotonic() > deadline

    with shop.stream(commit_seconds=0.2) as stream:
        counts = stream.run(stop)
    assert (shop.left(), counts.added["product_embedding"]) == (0, 1)


def test_a_server_that_refuses_every_read_ends_the_run(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*asked: object, **how: object) -> NoReturn:
        raise redis.exceptions.ConnectionError("max number of clients reached")

    with shop.stream() as stream:
        monkeypatch.setattr(redis.Redis, "xreadgroup", refuses)
        with pytest.raises(VitrineError, match="does not answer after 5 attempts: max number of clients reached"):
            stream.run(lambda: False)
