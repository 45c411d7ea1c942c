"""What a caller without the token can send and hold is bounded, and does not stop the others."""

import asyncio
import re
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trustme
from prometheus_client import generate_latest
from starlette.types import Receive, Scope, Send

from consumers.serving.metrics import Metrics
from feature_repo.auth import ServerAccess, TlsCertificate
from feature_repo.errors import UnavailableError
from feature_repo.server import descriptors
from feature_repo.server.http_protocol import AUTHORIZED
from feature_repo.server.http_server import HttpServer
from feature_repo.serving_limits import ConnectionLimits

LIMITS = ConnectionLimits(
    max_connections=4, max_header_bytes=2_000, header_seconds=0.3, idle_seconds=0.4, request_seconds=0.6
)
REASONS = re.findall(r"^ {8}(\w+) ", ConnectionLimits.__doc__ or "", re.M)
GOOD = b"GET /good HTTP/1.1\r\nhost: here\r\n\r\n"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """/good and /slow count as requests with the token; /body reads its body; /large answers with 20 MB."""
    if scope["path"] in ("/good", "/slow"):
        scope["state"][AUTHORIZED] = True
    if scope["path"] == "/slow":
        await asyncio.sleep(1.2)
    while scope["path"] == "/body" and (await receive()).get("more_body"):
        pass
    body = b"x" * (20_000_000 if scope["path"] == "/large" else 2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Running:
    """A server in a thread."""

    def __init__(self, limits: ConnectionLimits, access: ServerAccess) -> None:
        self.metrics, ready = Metrics(), threading.Event()
        # Where Feast has been imported, all registries of a process share the values of a metric.
        self._at_start = {reason: self._count(reason) for reason in REASONS}
        self.server = HttpServer(answer, access, 0, limits=limits, metrics=self.metrics, on_ready=ready.set)
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        assert ready.wait(5)

    def connect(self, data: bytes = b"") -> socket.socket:
        """Open a connection and send the bytes."""
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=3)
        connection.sendall(data)
        return connection

    def refused(self, reason: str) -> float:
        """Return how many connections this server refused for a reason."""
        return self._count(reason) - self._at_start[reason]

    def _count(self, reason: str) -> float:
        self.metrics.refused.labels(reason)
        name = "vitrine_serving_connections_refused_total"
        return self.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0

    def stop(self) -> None:
        self.server.stop()
        self._thread.join(10)


@contextmanager
def run(limits: ConnectionLimits = LIMITS, access: ServerAccess | None = None) -> Iterator[Running]:
    running = Running(limits, access or ServerAccess())
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with run() as running:
        yield running


def receive_all(connection: socket.socket) -> bytes:
    """Return what arrives until the server closes the connection."""
    received = b""
    with connection:
        try:
            while chunk := connection.recv(65_536):
                received += chunk
        except ConnectionResetError:
            pass
    return received


def send_until_closed(connection: socket.socket, piece: bytes, pause: float = 0.0) -> int:
    """Send the piece again and again; return how many bytes were sent when the server closed the connection."""
    sent, end = 0, time.monotonic() + 3
    try:
        while time.monotonic() < end:
            connection.sendall(piece)
            sent += len(piece)
            time.sleep(pause)
    except OSError:
        return sent
    pytest.fail("the connection stayed open")


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\na: ", b"GET / HTTP/1.1\r\n", b"\r\n"])
def test_a_header_or_url_without_end_is_431(served: Running, start: bytes) -> None:
    before = served.refused("header_size")
    filler = b"a: b\r\n" if start.endswith(b"1.1\r\n") else b"\r\n" if start == b"\r\n" else b"a"
    data = start + filler * (LIMITS.max_header_bytes // len(filler) + 1)
    assert receive_all(served.connect(data)).startswith(b"HTTP/1.1 431 ")
    assert served.refused("header_size") == before + 1
    with served.connect(start) as connection:
        assert send_until_closed(connection, filler * 10_000) < 20_000_000


def test_a_header_as_long_as_allowed_is_answered_whatever_its_pieces(served: Running) -> None:
    head = b"GET /good HTTP/1.1\r\nhost: here\r\na: "
    whole = head + b"b" * (LIMITS.max_header_bytes - len(head) - 5) + b"\r\n\r\n"
    for size in (1_500, 700, len(whole)):
        with served.connect() as connection:
            for _ in range(2):
                for start in range(0, len(whole), size):
                    connection.sendall(whole[start : start + size])
                assert connection.recv(1_000).startswith(b"HTTP/1.1 200 ")
    assert receive_all(served.connect(whole.replace(b"a: ", b"a: bb"))).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("data", "reason", "received"),
    [
        (b"", "silent", b""),
        (b"GET / HT", "header_time", b"HTTP/1.1 408 "),
        (b"\0\1\2\3\r\n\r\n", "malformed", b"HTTP/1.1 400 "),
        (b"POST /body HTTP/1.1\r\ncontent-length: 9\r\n\r\n1", "request_time", b""),
        (b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n1", "unread_body", b"HTTP/1.1 200 "),
        (GOOD + b"GET / HT", "header_time", b"HTTP/1.1 200 "),
        (b"GET /large HTTP/1.1\r\n\r\n", "request_time", None),
        (GOOD * 40, "pipelining", b""),
        (GOOD, None, b"HTTP/1.1 200 "),
    ],
)
def test_a_connection_that_makes_no_progress_is_closed_in_time(
    served: Running, data: bytes, reason: str | None, received: bytes | None
) -> None:
    before, start = {one: served.refused(one) for one in REASONS}, time.monotonic()
    with served.connect(data) as connection:
        if received is None:  # the caller reads nothing
            time.sleep(1.4)
        else:
            response = receive_all(connection)
            assert response.startswith(received)
            assert bool(response) == bool(received)
    assert time.monotonic() - start < 1.8
    assert {one for one in REASONS if served.refused(one) > before[one]} == {reason} - {None}


@pytest.mark.parametrize(
    ("start", "reason"), [(b"GET /", "header_time"), (b"POST / HTTP/1.1\r\ncontent-length: 900\r\n\r\n", "unread_body")]
)
def test_a_byte_now_and_then_does_not_keep_a_connection_open(served: Running, start: bytes, reason: str) -> None:
    before, began = served.refused(reason), time.monotonic()
    with served.connect(start) as connection:
        send_until_closed(connection, b"a", 0.05)
    assert time.monotonic() - began < 2
    assert served.refused(reason) == before + 1


def test_a_long_body_after_its_response_is_read_up_to_a_bound_and_the_next_request_is_answered() -> None:
    with run(replace(LIMITS, max_unread_bytes=50_000, header_seconds=2.0)) as served:
        with served.connect(b"POST / HTTP/1.1\r\ncontent-length: 50000\r\n\r\n" + b"a" * 50_000) as connection:
            assert connection.recv(1_000).startswith(b"HTTP/1.1 200 ")
            connection.sendall(GOOD)
            assert connection.recv(1_000).startswith(b"HTTP/1.1 200 ")
        with served.connect(b"POST / HTTP/1.1\r\ncontent-length: 900000000\r\n\r\n") as connection:
            assert send_until_closed(connection, b"a" * 10_000) < 20_000_000
        assert served.refused("unread_body") == 1


def test_trailers_are_dropped(served: Running) -> None:
    data = b"POST /body HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nauthorization: Bearer x\r\n\r\n"
    with served.connect(data) as connection:
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 ")


def test_connections_that_send_nothing_do_not_keep_out_one_that_asks(tmp_path: Path) -> None:
    authority, (chain, key) = trustme.CA(), (tmp_path / "chain.pem", tmp_path / "key.pem")
    issued = authority.issue_cert("localhost")
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    limits = replace(LIMITS, max_connections=20, header_seconds=30.0)
    for access, verify in ((ServerAccess(), False), (ServerAccess(certificate=TlsCertificate(chain, key)), context)):
        with run(limits, access) as served, ExitStack() as stack:
            for _ in range(30):
                stack.enter_context(served.connect())
            scheme = "https" if access.certificate else "http"
            for _ in range(5):
                start = time.monotonic()
                response = httpx.get(f"{scheme}://localhost:{served.server.port}/good", verify=verify)
                assert response.status_code == 200
                assert time.monotonic() - start < 1
            assert served.refused("evicted") >= 10


def test_connections_with_the_token_are_not_closed_for_others_which_wait(caplog: pytest.LogCaptureFixture) -> None:
    with run(replace(LIMITS, idle_seconds=0.7, request_seconds=10.0)) as served, ExitStack() as stack:
        held = [stack.enter_context(served.connect(GOOD)) for _ in range(LIMITS.max_connections - 1)]
        slow = stack.enter_context(served.connect(b"GET /slow HTTP/1.1\r\n\r\n"))
        for connection in held:
            assert connection.recv(1_000).startswith(b"HTTP/1.1 200 ")
        time.sleep(0.1)  # the slow request has arrived
        start = time.monotonic()
        assert stack.enter_context(served.connect(GOOD)).recv(1_000).startswith(b"HTTP/1.1 200 ")
        assert 0.3 < time.monotonic() - start < 2, "it waited until one of the others was idle for too long"
        assert (served.refused("full"), served.refused("evicted")) == (1, 0)
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv(1)
        assert b"vitrine_serving_connections " in generate_latest(served.metrics.registry)
    assert "HTTP connections refused: 1 full; " in caplog.text


def test_the_number_of_connections_leaves_descriptors_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = descriptors.count_open_descriptors()
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + descriptors.RESERVE + 100, hard))
        assert abs(descriptors.bound_connections(1_000) - 100) <= 2
        assert descriptors.bound_connections(50) == 50
        assert descriptors.raise_descriptor_limit() >= hard or hard == resource.RLIM_INFINITY
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_without_descriptors_serves_again_when_it_has_some() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with run() as served, ExitStack() as stack:
        waiting = [stack.enter_context(socket.socket()) for _ in range(3)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (find_free_descriptor(), hard))
            for connection in waiting:
                connection.settimeout(10)
                connection.connect(("127.0.0.1", served.server.port))
                connection.sendall(GOOD)
            deadline = time.monotonic() + 10
            while not served.refused("descriptors") and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert all(connection.recv(1_000).startswith(b"HTTP/1.1 200 ") for connection in waiting)
        assert served.refused("descriptors") >= 1


def find_free_descriptor() -> int:
    """Return the lowest descriptor that is not open. With it as the limit, no other can be opened."""
    with Path("/dev/null").open() as file:
        return file.fileno()


def test_a_taken_port_is_one_line() -> None:
    with run() as served, pytest.raises(UnavailableError, match=r"HTTP cannot listen on 127\.0\.0\.1:"):
        HttpServer(answer, ServerAccess(), served.server.port, limits=LIMITS, metrics=Metrics())
