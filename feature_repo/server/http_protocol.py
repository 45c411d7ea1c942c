"""One HTTP connection, with a bound on everything that a caller can send or hold before it has shown a token.

uvicorn limits neither the length of a header nor the time in which it must arrive, and it drops a body that nobody
reads for as long as it comes. This protocol adds, to uvicorn's protocol over httptools:

    header      at most `max_header_bytes` (431), complete within `header_seconds` (408)
    idle        `idle_seconds` between two requests
    request     answered, and the answer taken, within `request_seconds` of its header
    rest        a body that is still coming after the answer: `header_seconds` and `max_unread_bytes`
    pipelining  MAX_PIPELINED requests behind the one in progress
    trailers    ignored

A time is a moment in `deadline`; http_server.py looks at all connections several times a second and calls `expire`.
"""

import asyncio
import json
import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from feature_repo.serving_limits import ConnectionLimits

MAX_PIPELINED = 16
"""Requests that one connection may send ahead of the response to the first."""
CLOSE_SECONDS = 1.0
"""Time for a caller to take the error that closes its connection."""
AUTHORIZED = "is_authorized"
"""Key of an ASGI scope's `state` that the token's middleware sets."""


class BoundedProtocol(HttpToolsProtocol):
    """The protocol of one connection. All methods run in the event loop.

    Attributes:
        deadline: time of the event loop's clock after which `expire` may be called; infinite before the connection is
            made, while TLS has a limit of its own.

    Args:
        limits: the bounds.
        on_close: called once when the connection has ended, with this object.
        on_refuse: called with the reason, if the caller exceeds a bound; see `ConnectionLimits`.
        uvicorn: the arguments of uvicorn's protocol.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        on_close: Callable[["BoundedProtocol"], None],
        on_refuse: Callable[[str], None],
        **uvicorn: Any,
    ) -> None:
        super().__init__(**uvicorn)
        self.deadline = math.inf
        self._limits = limits
        self._on_close = on_close
        self._on_refuse = on_refuse
        self._is_proven = False
        self._in_header = True
        self._header_bytes = 0
        self._unread_bytes = 0
        self._taken_by = math.inf

    @property
    def is_proven(self) -> bool:
        """Whether a request of this connection had the token. The first such request counts while it is answered."""
        if not self._is_proven and self.cycle is not None:
            self._is_proven = AUTHORIZED in self.cycle.scope.get("state", {})
        return self._is_proven

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time for the first header."""
        super().connection_made(transport)
        self._allow(self._limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the connection has ended."""
        super().connection_lost(exc)
        self._on_close(self)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, in pieces that are not longer than the rest of a header may be."""
        start = 0
        while start < len(data) and not self.transport.is_closing():
            piece = data[start : start + self._limits.max_header_bytes - self._header_bytes]
            start += len(piece)
            if self._in_header:
                self._header_bytes += len(piece)
            elif self._is_answered():
                self._unread_bytes += len(piece)
            super().data_received(piece)
            self._check_sizes()

    def on_message_begin(self) -> None:
        """Start the time for a header, unless a request is in progress."""
        super().on_message_begin()
        self._header_bytes = self._header_bytes or 1  # it began behind another request, in the same piece
        if self._is_answered():
            self._allow(self._limits.header_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. A trailer, which follows a body, is dropped."""
        if self._in_header:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the time for the request."""
        super().on_headers_complete()
        self._in_header, self._header_bytes, self._unread_bytes = False, 0, 0
        self._allow(self._limits.request_seconds)

    def on_message_complete(self) -> None:
        """Count what follows as the next header."""
        super().on_message_complete()
        self._in_header = True

    def on_response_complete(self) -> None:
        """Start the time for what comes next: a pipelined request, the rest of the body, a header, or nothing."""
        self._is_proven = self.is_proven
        super().on_response_complete()
        self._taken_by = self.loop.time() + self._limits.request_seconds
        if not self._is_answered():  # a pipelined request has been started
            self._allow(self._limits.request_seconds)
        elif self._in_header and not self._header_bytes:
            self._allow(self._limits.idle_seconds)
        else:
            self._allow(self._limits.header_seconds)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse("malformed", HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1")

    def expire(self) -> None:
        """End the connection, whose deadline has passed."""
        is_sending = self.transport.get_write_buffer_size() > 0
        if is_sending and self.loop.time() < self._taken_by and self._is_answered():
            self.deadline = min(self._taken_by, self.loop.time() + self._limits.idle_seconds)
        elif is_sending or not self._is_answered():
            self._on_refuse("request_time")
            self.transport.abort()
        elif not self._in_header:
            self._refuse("unread_body")
        elif self._header_bytes:
            self._refuse("header_time", HTTPStatus.REQUEST_TIMEOUT, "the header did not arrive in time")
        elif self.cycle is None:
            self._refuse("silent")
        else:
            self._close()

    def _is_answered(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def _allow(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds

    def _check_sizes(self) -> None:
        limits = self._limits
        if self.transport.is_closing():
            return
        if self._header_bytes >= limits.max_header_bytes:
            message = f"a header may have at most {limits.max_header_bytes:,} bytes"
            self._refuse("header_size", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)
        elif self._unread_bytes > limits.max_unread_bytes:
            self._refuse("unread_body")
        elif len(self.pipeline) > MAX_PIPELINED:
            self._refuse("pipelining")

    def _refuse(self, reason: str, status: HTTPStatus | None = None, message: str = "") -> None:
        """Count the reason, send an error unless a response is on its way, and close the connection."""
        self._on_refuse(reason)
        if status is not None and self._is_answered():
            body = json.dumps({"error": "INVALID_ARGUMENT", "message": message})
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode())
        self._close()

    def _close(self) -> None:
        """Close the connection, also if the caller takes nothing any more."""
        self.deadline = math.inf
        self.transport.close()
        self.loop.call_later(CLOSE_SECONDS, self.transport.abort)
