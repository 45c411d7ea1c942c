"""A server of both protocols in this process."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from consumers.online import OnlineReader
from consumers.serving.executor import RequestExecutor
from consumers.serving.flight import FlightServer
from consumers.serving.http import create_app
from consumers.serving.metrics import Metrics
from consumers.serving.pairs import PairExecutor
from feature_repo import definitions
from feature_repo.auth import ServerAccess
from feature_repo.config import Settings
from feature_repo.server.http_server import HttpServer
from feature_repo.server.request_log import AccessLog
from feature_repo.serving_limits import ConnectionLimits, ServingLimits
from feature_repo.stores.feature_store import open_feature_store

TOKEN = "a-token-of-many-letters"


@dataclass(frozen=True)
class Served:
    """A running server, its addresses and its access log."""

    executor: RequestExecutor
    flight: str
    http: str
    log: io.StringIO

    def lines(self) -> list[dict[str, Any]]:
        """Return the access log. A line may be written a moment after its response has arrived."""
        time.sleep(0.05)
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@contextmanager
def materialized(settings: Settings, end: datetime) -> Iterator[OnlineReader]:
    """Apply the project's definitions, materialize a deployment's tables up to `end`, and open a reader of them."""
    store = open_feature_store(settings)
    store.apply([getattr(definitions, name) for name in definitions.__all__])
    store.materialize_incremental(end)
    with OnlineReader(f"lmdb://{settings.file.parent / 'online'}", project=settings.project) as reader:
        yield reader


@contextmanager
def serving(
    reader: OnlineReader,
    *,
    access: ServerAccess | None = None,
    limits: ServingLimits | None = None,
    connections: ConnectionLimits | None = None,
    now: datetime | None = None,
    open_pairs: Callable[[Metrics], PairExecutor] | None = None,
) -> Iterator[Served]:
    """Serve both protocols on free ports."""
    log, access = io.StringIO(), access or ServerAccess()
    executor = RequestExecutor(
        reader,
        limits=limits or ServingLimits(max_streams=3),
        metrics=Metrics(),
        access_log=AccessLog(log),
        clock=lambda: now or datetime.now(UTC),
    )
    pairs = None if open_pairs is None else open_pairs(executor.metrics)
    flight = FlightServer(executor, access, 0, pairs)
    started = threading.Event()
    http = HttpServer(
        create_app(executor, access, pairs=pairs),
        access,
        0,
        limits=connections or ConnectionLimits(),
        metrics=executor.metrics,
        on_ready=started.set,
    )
    thread = threading.Thread(target=http.run, daemon=True)
    thread.start()
    assert started.wait(10)
    certificate, port = access.certificate, http.port
    name = "localhost" if certificate else "127.0.0.1"
    try:
        yield Served(
            executor,
            f"grpc{'+tls' if certificate else ''}://{name}:{flight.port}",
            f"http{'s' if certificate else ''}://{name}:{port}",
            log,
        )
    finally:
        http.stop()
        thread.join()
        flight.shutdown()
        executor.close()
        if pairs is not None:
            pairs.close()
