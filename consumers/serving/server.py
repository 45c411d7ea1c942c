"""Both protocols, from one desk, until told to end."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from fastapi import APIRouter

from consumers.serving.auth import Door
from consumers.serving.ending import Ending
from consumers.serving.executor import Desk
from consumers.serving.flight import FlightServer
from consumers.serving.http import create_app
from feature_repo import memory

LAST_ANSWERS = 1.0
"""Seconds in which answers over Flight that are made go out; a stream that stays open is ended then."""


def serve(
    desk: Desk,
    door: Door,
    *,
    flight_port: int | None,
    http_port: int | None,
    ending: Ending,
    routers: Sequence[APIRouter] = (),
    on_ready: Callable[[dict[str, str]], None] = lambda addresses: None,
) -> None:
    """Serve until told to end; what is in work then is finished.

    Args:
        ending: tells it.
        flight_port, http_port: 0 takes any that is free, None serves not by this protocol.
        on_ready: is told the addresses, by protocol.

    Raises:
        VitrineError: an address is taken.
    """
    memory.keep_freed()
    desk.lookup.warm_up()
    gc.collect()
    gc.freeze()  # what is imported and warm stays: looking through it again and again would hold requests up
    flight = None if flight_port is None else FlightServer(desk, door, flight_port)
    addresses = {} if flight is None else {"flight": f"grpc{_s(door, '+tls')}://{door.host}:{flight.port}"}
    try:
        if http_port is None:
            told = threading.Event()
            ending.by(told.set)
            on_ready(addresses)
            told.wait()  # Flight serves since it was made
            return
        config = uvicorn.Config(
            create_app(desk, door, routers=routers),
            host=door.host,
            port=http_port,
            ssl_certfile=door.certificate.chain if door.certificate else None,
            ssl_keyfile=door.certificate.key if door.certificate else None,
            access_log=False,  # the desk writes one
            log_level=logging.WARNING,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        http = _Http(config, lambda port: on_ready(addresses | {"http": f"http{_s(door, 's')}://{door.host}:{port}"}))
        ending.by(http.end)
        http.run()
    finally:
        closing = None if flight is None else threading.Thread(target=flight.shutdown, daemon=True)
        if closing is not None:
            closing.start()
        desk.close()
        if closing is not None:
            closing.join(LAST_ANSWERS)  # it would wait for streams that nobody closes


class _Http(uvicorn.Server):
    """Says where it listens as soon as it does, and leaves signals to who runs it."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    def end(self) -> None:
        """Finish what is in work, and return from `run`."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: object = None) -> None:
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            self._on_ready(self.servers[0].sockets[0].getsockname()[1])


def _s(door: Door, letters: str) -> str:
    return letters if door.certificate else ""
