"""The HTTP server: uvicorn with sockets of our own, so that the number of connections has a bound.

asyncio's server accepts whatever comes, up to its backlog at once, and hands a connection over only when TLS is set up.
This one accepts connection by connection. If `max_connections` are open, it closes the oldest one that has not shown
the token yet, so that callers who only hold connections cannot keep out one that sends a request. If all have shown it,
it accepts no more until one is closed; the system queues a few.
"""

import asyncio
import errno
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from feature_repo.auth import ServerAccess
from feature_repo.errors import UnavailableError
from feature_repo.server.descriptors import bound_connections
from feature_repo.server.http_protocol import CLOSE_SECONDS, BoundedProtocol
from feature_repo.server.metrics import ServerMetrics
from feature_repo.serving_limits import ConnectionLimits

BACKLOG = 128
"""Connections that the system queues until they are accepted."""
WATCH_SECONDS = 0.25
"""Time between two looks at the deadlines of the connections."""
LOG_SECONDS = 60.0
"""Shortest time between two lines of the log about refused connections."""
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logging.getLogger(__name__)


class HttpServer(uvicorn.Server):
    """Listens as soon as it is created; `run` serves until `stop`. Leaves signals to the caller of `run`.

    Args:
        app: the application.
        access: host and certificate.
        port: port to listen on; 0 takes any free one, which the attribute `port` then holds.
        limits: bounds of the connections.
        metrics: counts open and refused connections.
        on_ready: called once when requests are answered.

    Raises:
        UnavailableError: it cannot listen: the port is taken, or the host is not an address of this machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: ServerAccess,
        port: int,
        *,
        limits: ConnectionLimits,
        metrics: ServerMetrics,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        config = uvicorn.Config(
            app,
            ssl_certfile=access.certificate.chain if access.certificate else None,
            ssl_keyfile=access.certificate.key if access.certificate else None,
            ws="none",
            log_config=None,  # records go to the handler of the command line
            log_level=logging.ERROR,  # its warnings are about what callers sent; the metrics count that
            access_log=False,  # the executor writes one
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=3_600,  # the protocol has a shorter one of its own
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)
        self._limits = limits
        self._metrics = metrics
        self._on_ready = on_ready
        self._listeners = _listen(access.host, port)
        self._open: dict[BoundedProtocol, asyncio.Task[object]] = {}
        """Connections and the tasks that set them up, oldest first."""
        self._max_connections = limits.max_connections
        self._released = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._refused: Counter[str] = Counter()
        self._log_after = 0.0

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listeners[0].getsockname()[1])

    def stop(self) -> None:
        """Make `run` finish the requests in progress and return."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing; `stop` ends the server."""
        yield

    async def startup(self, sockets: object = None) -> None:
        """Accept connections from now on."""
        await super().startup(sockets=[])
        self._max_connections = bound_connections(self._limits.max_connections)
        if self._max_connections < self._limits.max_connections:
            _log.warning(
                "at most %d HTTP connections instead of %d, because of the process's limit of descriptors (ulimit -n)",
                self._max_connections,
                self._limits.max_connections,
            )
        self._tasks = [asyncio.create_task(self._accept(listener)) for listener in self._listeners]
        self._tasks.append(asyncio.create_task(self._watch()))
        self._on_ready()

    async def shutdown(self, sockets: object = None) -> None:
        """Accept no more connections, and finish the requests in progress."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        await super().shutdown()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # or the caller has disconnected already
                if error.errno in _NO_DESCRIPTOR:
                    self._refuse("descriptors")
                    await asyncio.sleep(WATCH_SECONDS)
                continue
            try:
                await self._make_room()
            except BaseException:
                connection.close()
                raise
            self._serve_connection(connection)

    async def _make_room(self) -> None:
        """Wait until there are fewer connections than may be, closing one that has not shown the token."""
        is_counted = False
        while len(self._open) >= self._max_connections and not self._evict():
            if not is_counted:
                is_counted = True
                self._refuse("full")
            self._released.clear()
            await self._released.wait()

    def _evict(self) -> bool:
        """Close the oldest connection that has not shown the token; return whether there was one."""
        protocol = next((one for one in self._open if not one.is_proven), None)
        if protocol is None:
            return False
        self._refuse("evicted")
        task = self._open.pop(protocol)
        if task.done():
            protocol.transport.abort()
        else:
            task.cancel()
        return True

    def _serve_connection(self, connection: socket.socket) -> None:
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        protocol = BoundedProtocol(
            self._limits,
            self._release,
            self._refuse,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=loop,
        )
        times = {"ssl_handshake_timeout": self._limits.header_seconds, "ssl_shutdown_timeout": CLOSE_SECONDS}
        task = asyncio.create_task(
            loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls, **(times if tls else {}))
        )
        self._open[protocol] = task

        def check_set_up(task: "asyncio.Task[object]") -> None:
            if task.cancelled() or task.exception() is not None:
                if not task.cancelled():
                    self._refuse("handshake")
                connection.close()
                self._release(protocol)

        task.add_done_callback(check_set_up)

    def _release(self, protocol: BoundedProtocol) -> None:
        self._open.pop(protocol, None)
        self._released.set()

    def _refuse(self, reason: str) -> None:
        self._metrics.refused.labels(reason).inc()
        self._refused[reason] += 1

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = loop.time()
            for protocol in [one for one in self._open if one.deadline < now]:
                try:
                    protocol.expire()
                except Exception:  # one connection must not stop the watch over the others
                    _log.exception("cannot close a connection")
            self._metrics.connections.set(len(self._open))
            self._log_refused()

    def _log_refused(self) -> None:
        """Log the refused connections by reason, unless a line has just been written or all were only silent."""
        if self._refused.keys() - {"silent"} and time.monotonic() >= self._log_after:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self._refused.items()))
            _log.warning(
                "HTTP connections refused: %s; %d of %d are open", reasons, len(self._open), self._max_connections
            )
            self._refused.clear()
            self._log_after = time.monotonic() + LOG_SECONDS


def _listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of the host; with port 0 all have the same port."""
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], port, *address[2:]))
            listener.listen(BACKLOG)
            port = port or listener.getsockname()[1]
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise UnavailableError(
            f"HTTP cannot listen on {host}:{port} ({error.strerror}); if another server uses the port, give another "
            "--http-port, or -1 to serve without HTTP"
        ) from error
    return listeners
