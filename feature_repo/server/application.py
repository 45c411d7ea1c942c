"""The HTTP application of a server: monitoring, sign-in, assets, error responses, the token before everything.

    GET  /healthz    200 while the process runs           GET /readyz  200 while the server can answer requests
    GET  /metrics    metrics in Prometheus's text format  GET /openapi.json
    GET  /, /docs    a page with the routes
    GET  /sign-in    where a browser gives the token once (feature_repo/web/sign_in.py)

/metrics needs the token, like every route except /healthz and /readyz, /sign-in and the style sheets of pages. Instead
of the token, the session of a browser that has signed in counts for every route outside /v1.

An error response is {"error": word, "message": text} with gRPC's status word (errors.py), or HTTP's word if the route
or the method does not exist.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from feature_repo.auth import ServerAccess
from feature_repo.server import index_page
from feature_repo.server.access import AccessMiddleware
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.server.metrics import ServerMetrics
from feature_repo.web import sign_in
from feature_repo.web.pages import Pages
from feature_repo.web.sessions import SessionSigner

_CODES = (
    ErrorCode.INVALID_ARGUMENT,
    ErrorCode.NOT_FOUND,
    ErrorCode.ABORTED,
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.RESOURCE_EXHAUSTED,
    ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.UNAVAILABLE,
    ErrorCode.INTERNAL,
)
"""Codes of the responses to requests."""
_ERROR_SCHEMA = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
    "required": ["error", "message"],
}


@dataclass(frozen=True)
class ServerDescription:
    """What the start page and the OpenAPI description say about a server."""

    text: str
    """A sentence about what it answers."""
    example_path: str
    """Route of an example."""
    example: str
    """JSON body of the example."""


def create_server_app(
    description: ServerDescription,
    routers: Sequence[APIRouter],
    access: ServerAccess,
    metrics: ServerMetrics,
    check_ready: Callable[[], Coroutine[Any, Any, None]],
    *,
    pages: Pages,
    max_body_bytes: int,
    body_limits: Mapping[str, int],
    has_start_page: bool = True,
) -> FastAPI:
    """Return the HTTP application of a server.

    Args:
        description: of the server.
        routers: the server's routes. They need the token.
        access: the token that every route needs, except those in OPEN_PATHS. Its host and certificate are not used.
        metrics: what /metrics shows.
        check_ready: raises RequestError while the server cannot answer requests.
        pages: templates and assets of the pages among the routes.
        max_body_bytes: the largest body in bytes.
        body_limits: the same by path, where it differs.
        has_start_page: whether / is the page with the routes, as /docs is; otherwise one of the routers has it.
    """
    sessions = SessionSigner(access)
    app = FastAPI(
        title="Vitrine",
        version="1",
        description=description.text,
        docs_url=None,  # both pages load their scripts from elsewhere; index_page.py replaces them
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    for router in routers:
        app.include_router(router)
    app.include_router(_monitoring_routes(metrics, check_ready))
    paths = ("/", "/docs") if has_start_page else ("/docs",)
    app.include_router(
        index_page.create_router(app, paths, pages.navigation, description.example_path, description.example)
    )
    app.include_router(sign_in.create_router(access, sessions, pages, lambda: datetime.now(UTC)))
    app.include_router(pages.assets.create_router())
    app.add_middleware(
        AccessMiddleware,
        access=access,
        sessions=sessions,
        max_body_bytes=max_body_bytes,
        body_limits=body_limits,
        metrics=metrics,
    )
    app.add_exception_handler(RequestError, _respond_to_error)
    app.add_exception_handler(HTTPException, _respond_to_http_error)
    return app


async def read_body(request: Request, timeout_seconds: float) -> bytes:
    """Return the request's body.

    Raises:
        RequestError: DEADLINE_EXCEEDED with status 408 if it does not arrive in time; CANCELLED if the caller
            disconnects.
    """
    try:
        return await asyncio.wait_for(request.body(), timeout_seconds)
    except TimeoutError:
        raise RequestError(
            ErrorCode.DEADLINE_EXCEEDED, "the deadline passed before the request body arrived", status=408
        ) from None
    except ClientDisconnect:
        raise RequestError(ErrorCode.CANCELLED, "the caller disconnected before the request body arrived") from None


def describe_errors() -> dict[str, Any]:
    """Return the error responses of a route that answers requests, by status, as OpenAPI has them."""
    texts = {code.value: code.name for code in _CODES}
    texts |= {408: "The body did not arrive in time.", 413: "The body is too long."}
    content = {"application/json": {"schema": _ERROR_SCHEMA}}
    return {str(status): {"description": text, "content": content} for status, text in texts.items()}


def _monitoring_routes(metrics: ServerMetrics, check_ready: Callable[[], Coroutine[Any, Any, None]]) -> APIRouter:
    router = APIRouter()
    ping: asyncio.Task[None] | None = None

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Return 200 while the process runs."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": ErrorCode.UNAVAILABLE.name}})
    async def readyz() -> dict[str, str]:
        """Return 200 while the server can answer requests."""
        nonlocal ping
        # One for all callers of the moment: they need no token, and must not occupy the workers.
        if ping is None or ping.done():
            ping = asyncio.create_task(check_ready())
        await asyncio.shield(ping)
        return {"status": "ok"}

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def show_metrics() -> Response:
        """Return the metrics in Prometheus's text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _respond_to_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"retry-after": "1"} if error.code is ErrorCode.RESOURCE_EXHAUSTED else {}
    if error.status == HTTPStatus.REQUEST_TIMEOUT:  # the rest of the body would be read as the next request
        headers["connection"] = "close"
    return JSONResponse({"error": error.code.name, "message": error.message}, error.status, headers)


def _respond_to_http_error(request: Request, error: Exception) -> Response:
    """Respond to a route or a method that does not exist."""
    assert isinstance(error, HTTPException)
    body = {"error": HTTPStatus(error.status_code).name, "message": str(error.detail)}
    return JSONResponse(body, error.status_code, error.headers)
