"""Serves both protocols with one executor until the shutdown."""

import gc
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fastapi import APIRouter

from consumers.serving.executor import RequestExecutor
from consumers.serving.flight import FlightServer
from consumers.serving.http import create_app
from feature_repo import memory
from feature_repo.auth import ServerAccess
from feature_repo.server import descriptors
from feature_repo.server.http_server import HttpServer
from feature_repo.server.shutdown import Shutdown
from feature_repo.serving_limits import ConnectionLimits
from feature_repo.web.pages import Pages

if TYPE_CHECKING:
    from consumers.serving.pairs import PairExecutor

FLIGHT_GRACE_SECONDS = 1.0
"""Time in which Flight may send finished responses at the shutdown. Streams still open after it are ended."""
DESCRIPTOR_SECONDS = 5.0
"""Time between two looks at the number of open file descriptors."""
FULL_SHARE = 0.9
"""With a larger share of its descriptors in use, the process logs an error."""

_log = logging.getLogger(__name__)


def serve(
    executor: RequestExecutor,
    access: ServerAccess,
    *,
    flight_port: int | None,
    http_port: int | None,
    shutdown: Shutdown,
    connections: ConnectionLimits | None = None,
    pairs: "PairExecutor | None" = None,
    routers: Sequence[APIRouter] = (),
    pages: Pages | None = None,
    body_limits: Mapping[str, int] | None = None,
    on_ready: Callable[[dict[str, str]], None] = lambda addresses: None,
) -> None:
    """Serve until the shutdown, finish the requests in progress, and close the executors.

    First one request is sent to each feature service, so that the first caller need not wait for what loads late. If
    that fails, the server starts all the same.

    Args:
        executor: answers the requests.
        access: host, token and certificate.
        flight_port: port of Arrow Flight; 0 takes any free one, None serves no Flight.
        http_port: port of HTTP; 0 takes any free one, None serves no HTTP.
        shutdown: from `graceful_shutdown`.
        connections: bounds of HTTP connections; None takes the defaults. `request_seconds` follows the executor's
            deadline.
        pairs: answers requests for pairs; None refuses them.
        routers: further HTTP routes; not used without HTTP.
        pages: templates and assets of the pages among them; None: only the sign-in is a page.
        body_limits: the largest HTTP body in bytes, by path, where it is not that of a request for features.
        on_ready: called once, when callers can connect, with the addresses by protocol: "flight", such as
            grpc://127.0.0.1:8815, and "http". A protocol that is not served is missing.

    Raises:
        UnavailableError: Flight or HTTP cannot listen.
    """
    descriptors.raise_descriptor_limit()
    memory.keep_freed()
    executor.lookup.warm_up()
    if pairs is not None:
        pairs.warm_up()
    gc.collect()
    gc.freeze()  # later collections skip what is imported and warm; scanning it would delay requests
    flight = None if flight_port is None else FlightServer(executor, access, flight_port, pairs)
    is_tls = access.certificate is not None
    addresses = {} if flight is None else {"flight": f"grpc{'+tls' if is_tls else ''}://{access.host}:{flight.port}"}
    closed = threading.Event()
    threading.Thread(target=_watch_descriptors, args=(executor, closed), daemon=True).start()
    try:
        if http_port is None:
            stop = threading.Event()
            shutdown.on_signal(stop.set)
            on_ready(addresses)
            stop.wait()  # Flight serves in its own threads
            return
        scheme = "https" if is_tls else "http"
        http = HttpServer(
            create_app(executor, access, pairs=pairs, routers=routers, pages=pages, body_limits=body_limits),
            access,
            http_port,
            limits=(connections or ConnectionLimits()).for_deadline(executor.limits.deadline_seconds),
            metrics=executor.metrics,
            on_ready=lambda: on_ready(addresses | {"http": f"{scheme}://{access.host}:{http.port}"}),
        )
        shutdown.on_signal(http.stop)
        http.run()
    finally:
        closed.set()
        # FlightServer.shutdown waits for streams that callers may never close, so it runs in a daemon thread.
        closing = None if flight is None else threading.Thread(target=flight.shutdown, daemon=True)
        if closing is not None:
            closing.start()
        executor.close()
        if pairs is not None:
            pairs.close()
        if closing is not None:
            closing.join(FLIGHT_GRACE_SECONDS)


def _watch_descriptors(executor: RequestExecutor, stop: threading.Event) -> None:
    """Measure the descriptors in use until `stop`, and log it when nearly none is free.

    Arrow Flight accepts connections without a bound, and accepts none while the process has no descriptor.
    """
    limit, was_full = descriptors.raise_descriptor_limit(), False
    while True:
        share = descriptors.count_open_descriptors() / limit
        executor.metrics.descriptors.set(share)
        if share > FULL_SHARE and not was_full:
            _log.error("%.0f%% of %d file descriptors are in use; further connections may fail", share * 100, limit)
        was_full = share > FULL_SHARE
        if stop.wait(DESCRIPTOR_SECONDS):
            return
