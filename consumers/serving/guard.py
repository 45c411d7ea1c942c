"""What stands before every HTTP route: the token, and an end to how long a body may be."""

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumers.serving.auth import Door
from consumers.serving.errors import Code, Refused

OPEN = frozenset({"/healthz", "/readyz"})
"""What a load balancer asks, which has no token."""


class Guard:
    """ASGI, around an application.

    Args:
        longest: bytes of a request's body; a longer one is answered 413, and not read to its end.
    """

    def __init__(self, app: ASGIApp, *, door: Door, longest: int) -> None:
        self._app = app
        self._door = door
        self._longest = longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"] not in OPEN and not self._door.admits(headers.get(b"authorization")):
            await _say(send, Refused(Code.UNAUTHENTICATED, "wanted the header `Authorization: Bearer TOKEN`"))
            return
        said = headers.get(b"content-length", "0")
        if not said.isdigit() or int(said) > self._longest:
            await _say(send, self._too_long())
            return
        await self._app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        """`receive`, for bodies that do not say how long they are."""
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._longest:
                raise self._too_long()
            return message

        return counted

    def _too_long(self) -> Refused:
        return Refused(Code.INVALID_ARGUMENT, f"a body of at most {self._longest:,} bytes is read", status=413)


async def _say(send: Send, refused: Refused) -> None:
    body = json.dumps({"error": refused.code.name, "message": refused.message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.code is Code.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b'Basic realm="vitrine", charset="UTF-8"'))
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
