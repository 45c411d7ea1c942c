"""Serves both protocols with one executor until the shutdown."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from fastapi import APIRouter

from consumers.serving.executor import RequestExecutor
from consumers.serving.flight import FlightServer
from consumers.serving.http import create_app
from consumers.serving.shutdown import Shutdown
from feature_repo import memory
from feature_repo.auth import ServerAccess

FLIGHT_GRACE_SECONDS = 1.0
"""Time in which Flight may send finished responses at the shutdown. Streams still open after it are ended."""


def serve(
    executor: RequestExecutor,
    access: ServerAccess,
    *,
    flight_port: int | None,
    http_port: int | None,
    shutdown: Shutdown,
    routers: Sequence[APIRouter] = (),
    on_ready: Callable[[dict[str, str]], None] = lambda addresses: None,
) -> None:
    """Serve until the shutdown, finish the requests in progress, and close the executor.

    First one request is sent to each feature service, so that the first caller need not wait for what loads late. If
    that fails, the server starts all the same.

    Args:
        executor: answers the requests.
        access: host, token and certificate.
        flight_port: port of Arrow Flight; 0 takes any free one, None serves no Flight.
        http_port: port of HTTP; 0 takes any free one, None serves no HTTP.
        shutdown: from `graceful_shutdown`.
        routers: further HTTP routes; not used without HTTP.
        on_ready: called once, when callers can connect, with the addresses by protocol: "flight", such as
            grpc://127.0.0.1:8815, and "http". A protocol that is not served is missing.

    Raises:
        UnavailableError: Flight cannot listen. The executor then stays open.
        SystemExit: HTTP cannot listen. `supervisor.check_ports_free` finds that before.
    """
    memory.keep_freed()
    executor.lookup.warm_up()
    gc.collect()
    gc.freeze()  # later collections skip what is imported and warm; scanning it would delay requests
    flight = None if flight_port is None else FlightServer(executor, access, flight_port)
    is_tls = access.certificate is not None
    addresses = {} if flight is None else {"flight": f"grpc{'+tls' if is_tls else ''}://{access.host}:{flight.port}"}
    try:
        if http_port is None:
            stop = threading.Event()
            shutdown.on_signal(stop.set)
            on_ready(addresses)
            stop.wait()  # Flight serves in its own threads
            return
        config = uvicorn.Config(
            create_app(executor, access, routers=routers),
            host=access.host,
            port=http_port,
            ssl_certfile=access.certificate.chain if access.certificate else None,
            ssl_keyfile=access.certificate.key if access.certificate else None,
            access_log=False,  # the executor writes one
            log_level=logging.WARNING,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        scheme = "https" if is_tls else "http"
        http = _HttpServer(config, lambda port: on_ready(addresses | {"http": f"{scheme}://{access.host}:{port}"}))
        shutdown.on_signal(http.stop)
        http.run()
    finally:
        # FlightServer.shutdown waits for streams that callers may never close, so it runs in a daemon thread.
        closing = None if flight is None else threading.Thread(target=flight.shutdown, daemon=True)
        if closing is not None:
            closing.start()
        executor.close()
        if closing is not None:
            closing.join(FLIGHT_GRACE_SECONDS)


class _HttpServer(uvicorn.Server):
    """Calls `on_ready` with its port once it listens. Leaves signals to the caller of `run`."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    def stop(self) -> None:
        """Make `run` finish the requests in progress and return."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: object = None) -> None:
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            self._on_ready(self.servers[0].sockets[0].getsockname()[1])
