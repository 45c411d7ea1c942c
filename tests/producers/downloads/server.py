"""A real HTTP server on the loopback network, which answers as a test says and notes what it was asked."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


class ImageServer(ThreadingHTTPServer):
    """Answers each path by a function of `answers`, any other path with 404."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked = Counter[str]()
        self.times: list[float] = []
        self.active = self.most_active = 0
        self.connections = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The server's URL, without a slash at its end."""
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ImageServer

    def do_GET(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        with server.lock:
            server.asked[path] += 1
            server.times.append(time.monotonic())
            server.active += 1
            server.most_active = max(server.most_active, server.active)
        try:
            with suppress(ConnectionError):
                server.answers.get(path, send(404, b"no such image", "text/plain"))(self)
        finally:
            with server.lock:
                server.active -= 1

    def log_message(self, format: str, *args: object) -> None:
        pass


def send(status: int, body: bytes, content_type: str | None, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer with a body of known length."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        if content_type is not None:
            handler.send_header("Content-Type", content_type)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirect(url: str) -> Answer:
    return send(302, b"", None, {"Location": url})


@contextmanager
def serve_images(address: str = "127.0.0.1") -> Iterator[ImageServer]:
    """Serve on a free port of an address until the context ends."""
    server = ImageServer(address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
