"""Which HTTP requests are answered at all: the token, a browser's session, the size of a body."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feature_repo.auth import ServerAccess
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.server.http_protocol import AUTHORIZED
from feature_repo.server.metrics import ServerMetrics
from feature_repo.web import assets, sign_in
from feature_repo.web.sessions import SessionSigner, find_session

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Routes that need no token: load balancers call them."""
_API = "/v1/"
"""Beginning of the routes for programs, for which a browser's session does not count."""


class AccessMiddleware:
    """ASGI middleware that checks the token and then limits the size of request bodies.

    Args:
        app: the application behind it.
        access: the token; a request without it gets 401, except on OPEN_PATHS and what the sign-in needs. If there is
            no token, none is needed.
        sessions: checks the session of a browser, which counts like the token outside /v1. A browser that asks for a
            page without it is sent to the sign-in.
        max_body_bytes: largest accepted body in bytes, inclusive. A larger one gets 413 and is not read to its end; so
            does a Content-Length that is not a number.
        body_limits: the same for some paths.
        metrics: counts the requests without the token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: ServerAccess,
        sessions: SessionSigner,
        max_body_bytes: int,
        body_limits: Mapping[str, int],
        metrics: ServerMetrics,
    ) -> None:
        self._app = app
        self._access = access
        self._sessions = sessions
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._body_limits = body_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an unauthorized or too long request, and pass every other one to the application.

        What is not HTTP, such as the start of the application or a WebSocket, is passed on unchecked.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path: str = scope["path"]
        is_open = path in (*OPEN_PATHS, sign_in.PATH, sign_in.END_PATH) or path.startswith(assets.PREFIX)
        if not is_open and not self._is_authorized(path, headers):
            error = RequestError(ErrorCode.UNAUTHENTICATED, "send the header `Authorization: Bearer TOKEN`")
            self._metrics.requests.labels("http", error.code.name).inc()
            if scope["method"] == "GET" and "text/html" in headers.get(b"accept", ""):
                query = scope["query_string"].decode("latin-1")
                await _send_to_sign_in(send, quote(path) + (f"?{query}" if query else ""))
            else:
                await _send_error(send, error, asks_browser=b"sec-fetch-mode" not in headers)
            return
        if not is_open:
            scope.setdefault("state", {})[AUTHORIZED] = True
        content_length = headers.get(b"content-length", "0")
        max_bytes = self._body_limits.get(path, self._max_body_bytes)
        if not content_length.isdigit() or int(content_length) > max_bytes:
            await _send_error(send, _body_too_long(max_bytes))
            return
        await self._app(scope, _limit(receive, max_bytes), send)

    def _is_authorized(self, path: str, headers: Mapping[bytes, str]) -> bool:
        """Return whether a request has the token or, outside /v1, the session of a browser that has signed in."""
        if self._access.is_authorized(headers.get(b"authorization")):
            return True
        return not path.startswith(_API) and self._sessions.is_valid(find_session(headers.get(b"cookie")), _now())


def _limit(receive: Receive, max_bytes: int) -> Receive:
    """`receive` that counts the bytes of a body, for bodies without a Content-Length."""
    received_bytes = 0

    async def receive_counted() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > max_bytes:
            raise _body_too_long(max_bytes)
        return message

    return receive_counted


def _body_too_long(max_bytes: int) -> RequestError:
    return RequestError(ErrorCode.INVALID_ARGUMENT, f"a request body may have at most {max_bytes:,} bytes", status=413)


async def _send_to_sign_in(send: Send, wanted: str) -> None:
    """Send a browser to the sign-in, and from there back to the path `wanted`."""
    location = f"{sign_in.PATH}?next={quote(wanted, safe='')}".encode()
    headers = [(b"location", location), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": HTTPStatus.SEE_OTHER, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _send_error(send: Send, error: RequestError, *, asks_browser: bool = True) -> None:
    """Send an error response from the middleware, where exception handlers do not apply.

    Args:
        send: of ASGI.
        error: the error.
        asks_browser: whether a browser may ask its user for a password; it must not for a picture or for a script.
    """
    body = json.dumps({"error": error.code.name, "message": error.message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.code is ErrorCode.UNAUTHENTICATED and asks_browser:
        headers.append((b"www-authenticate", b'Basic realm="vitrine", charset="UTF-8"'))
    if error.code is ErrorCode.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _now() -> datetime:
    return datetime.now(UTC)
