"""What stands before every HTTP route: the token, and an end to how long a body may be."""

import json
from typing import Any

from consumers.serving.door import Door
from consumers.serving.refusal import Code, Refused

OPEN = frozenset({"/healthz", "/readyz"})
"""What a load balancer asks, which has no token."""

Receive = Any
Send = Any


class Guard:
    """ASGI, around an application.

    Args:
        longest: bytes of a request's body; a longer one is answered 413, and not read to its end.
    """

    def __init__(self, app: Any, *, door: Door, longest: int) -> None:
        self._app = app
        self._door = door
        self._longest = longest

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"] not in OPEN and not self._door.admits(headers.get(b"authorization")):
            await _say(send, 401, Code.UNAUTHENTICATED.name, "wanted the header `Authorization: Bearer TOKEN`")
            return
        said = headers.get(b"content-length", "0")
        if not said.isdigit() or int(said) > self._longest:
            await _say(send, 413, Code.INVALID_ARGUMENT.name, f"a body of at most {self._longest:,} bytes is read")
            return
        await self._app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        """`receive`, for bodies that do not say how long they are."""
        taken = 0

        async def counted() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._longest:
                raise Refused(Code.INVALID_ARGUMENT, f"a body of at most {self._longest:,} bytes is read")
            return message

        return counted


async def _say(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"error": code, "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="vitrine", charset="UTF-8"'))
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
