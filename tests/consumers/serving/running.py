"""A server of both protocols in this process, and what it is asked for."""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uvicorn

from consumers.online import OnlineReader
from consumers.serving.executor import AccessLog, RequestExecutor
from consumers.serving.flight import FlightServer
from consumers.serving.http import create_app
from consumers.serving.metrics import Metrics
from feature_repo import definitions
from feature_repo.auth import ServerAccess
from feature_repo.config import Settings
from feature_repo.serving_limits import ServingLimits
from feature_repo.stores.feature_store import open_feature_store

TOKEN = "a-token-of-many-letters"


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    executor: RequestExecutor
    flight: str
    http: str
    log: io.StringIO

    def lines(self) -> list[dict[str, Any]]:
        """The access log; an answer may be with its caller a moment before its line is written."""
        time.sleep(0.05)
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@contextmanager
def materialized(made: Settings, end: datetime) -> Iterator[OnlineReader]:
    """A reader of all that a deployment's tables have up to `end`, under the project's own definitions."""
    store = open_feature_store(made)
    store.apply([getattr(definitions, name) for name in definitions.__all__])
    store.materialize_incremental(end)
    with OnlineReader(f"lmdb://{made.file.parent / 'online'}", project=made.project) as opened:
        yield opened


@contextmanager
def serving(
    reader: OnlineReader,
    *,
    access: ServerAccess | None = None,
    limits: ServingLimits | None = None,
    now: datetime | None = None,
) -> Iterator[Served]:
    """Both protocols, at ports that are free."""
    log, access = io.StringIO(), access or ServerAccess()
    executor = RequestExecutor(
        reader,
        limits=limits or ServingLimits(max_streams=3),
        metrics=Metrics(),
        access_log=AccessLog(log),
        clock=lambda: now or datetime.now(UTC),
    )
    flight = FlightServer(executor, access, 0)
    certificate = access.certificate
    http = uvicorn.Server(
        uvicorn.Config(
            create_app(executor, access),
            port=0,
            ssl_certfile=certificate.chain if certificate else None,
            ssl_keyfile=certificate.key if certificate else None,
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=http.run, daemon=True)
    thread.start()
    while not http.started:
        time.sleep(0.01)
    port = http.servers[0].sockets[0].getsockname()[1]
    name = "localhost" if certificate else "127.0.0.1"
    try:
        yield Served(
            executor,
            f"grpc{'+tls' if certificate else ''}://{name}:{flight.port}",
            f"http{'s' if certificate else ''}://{name}:{port}",
            log,
        )
    finally:
        http.should_exit = True
        thread.join()
        flight.shutdown()
        executor.close()
