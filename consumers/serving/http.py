"""Features over HTTP: JSON for people, an Arrow stream for programs.

    POST /v1/features   a request (request.py) as JSON. With `Accept: application/vnd.apache.arrow.stream` the response
                        body is an Arrow IPC stream of the candidates. If the service has features of the user, a second
                        stream of one row follows the end of the first.
    GET  /v1/services   the feature services and their views
    GET  /healthz       200 while the process runs           GET /readyz  200 while the online store answers too
    GET  /metrics       metrics in Prometheus's text format  GET /openapi.json
    GET  /, /docs       a page with the routes
    GET  /sign-in       where a browser gives the token once (feature_repo/web/sign_in.py)

/readyz and /v1/services answer 503 if the online store does not answer or the server has no place for the work; /readyz
also if the store lacks views or services, which it names. /metrics needs the token, like every route except /healthz
and /readyz, /sign-in and the style sheets of pages. Instead of the token, the session of a browser that has signed in
counts for every route outside /v1.

An error response is {"error": word, "message": text} with gRPC's status word (errors.py), or HTTP's word if the route
or the method does not exist.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from consumers.serving import index_page
from consumers.serving.access import AccessMiddleware
from consumers.serving.errors import ErrorCode, RequestError
from consumers.serving.executor import RequestContext, RequestExecutor
from consumers.serving.request import request_schema
from consumers.serving.response import ARROW, EVENT_TIMESTAMP, STATUS, STATUS_WORDS, FeatureResponse, to_ipc
from feature_repo.auth import ServerAccess
from feature_repo.web import sign_in
from feature_repo.web.pages import Pages
from feature_repo.web.sessions import SessionSigner

if TYPE_CHECKING:
    from consumers.serving.pairs import PairExecutor

PROTOCOL = "http"
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


def create_app(
    executor: RequestExecutor,
    access: ServerAccess,
    *,
    pairs: "PairExecutor | None" = None,
    routers: Sequence[APIRouter] = (),
    pages: Pages | None = None,
    body_limits: Mapping[str, int] | None = None,
) -> FastAPI:
    """Return the HTTP application. The caller serves it, and closes the executors.

    Args:
        executor: answers the requests.
        access: the token that every route needs, except those in OPEN_PATHS. Its host and certificate are not used.
        pairs: answers requests for pairs; without it there is no such route.
        routers: further routes, such as the status page's. They need the token too.
        pages: templates and assets of the pages among them; None: only the sign-in is a page.
        body_limits: the largest body in bytes, by path, where it is not that of a request for features.
    """
    pages, sessions = pages or Pages((), ()), SessionSigner(access)
    app = FastAPI(
        title="Vitrine",
        version="1",
        description="Features of a user and candidates for rankers.",
        docs_url=None,  # both pages load their scripts from elsewhere; index_page.py replaces them
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.include_router(_feature_routes(executor))
    app.include_router(_monitoring_routes(executor))
    limits = dict(body_limits or {})
    if pairs is not None:
        from consumers.serving import pair_routes  # needs the extras that score pairs

        app.include_router(pair_routes.create_router(executor, pairs))
        limits[pair_routes.PATH] = pairs.limits.max_request_bytes
    for router in routers:
        app.include_router(router)
    app.include_router(index_page.create_router(app, pages.navigation))
    app.include_router(sign_in.create_router(access, sessions, pages, lambda: datetime.now(UTC)))
    app.include_router(pages.assets.create_router())
    app.add_middleware(
        AccessMiddleware,
        access=access,
        sessions=sessions,
        max_body_bytes=executor.max_request_bytes,
        body_limits=limits,
        metrics=executor.metrics,
    )
    app.add_exception_handler(RequestError, _respond_to_error)
    app.add_exception_handler(HTTPException, _respond_to_http_error)
    return app


def _feature_routes(executor: RequestExecutor) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/features",
        openapi_extra=describe_post(
            request_schema(executor.limits.max_product_ids), _RESPONSE_SCHEMA, "The features, by column."
        ),
    )
    async def features(request: Request) -> Response:
        """Return the features of a user and candidates."""

        async def execute(data: bytes, context: RequestContext, wants_arrow: bool) -> bytes:
            return await executor.execute_async(data, context, _to_arrow if wants_arrow else _to_json)

        return await respond(request, executor, execute)

    @router.get("/v1/services", responses={503: {"description": ErrorCode.UNAVAILABLE.name}})
    async def services() -> dict[str, list[str]]:
        """Return the views of each feature service."""
        return await executor.run_untracked(executor.lookup.list_services)

    return router


def describe_post(request: Mapping[str, Any], response: Mapping[str, Any], description: str) -> dict[str, Any]:
    """Return the OpenAPI description of a route that takes JSON and answers with JSON or an Arrow stream.

    Args:
        request: JSON schema of the request.
        response: JSON schema of the response.
        description: what the response holds, a sentence.
    """
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "200": {
                "description": description,
                "content": {"application/json": {"schema": response}, ARROW: {"schema": {"type": "string"}}},
            },
            **describe_errors(),
        },
    }


async def respond(
    request: Request,
    executor: RequestExecutor,
    execute: Callable[[bytes, RequestContext, bool], Awaitable[bytes | memoryview]],
) -> Response:
    """Read the body of a request, execute it as one that is logged and counted, and return the response.

    Args:
        request: the request, whose `Accept` says whether the response is an Arrow stream.
        executor: logs and counts; its deadline bounds the reading of the body.
        execute: called with the body, the context, and whether an Arrow stream is wanted; returns the body of the
            response.
    """
    wants_arrow = ARROW in request.headers.get("accept", "")
    with executor.track(PROTOCOL, request.headers.get("x-request-id")) as context:
        data = await read_body(request, executor.limits.deadline_seconds)
        body = await execute(data, context, wants_arrow)
    return Response(
        bytes(body), media_type=ARROW if wants_arrow else "application/json", headers={"x-request-id": context.id}
    )


def _monitoring_routes(executor: RequestExecutor) -> APIRouter:
    router = APIRouter()
    ping: asyncio.Task[None] | None = None

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Return 200 while the process runs."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": ErrorCode.UNAVAILABLE.name}})
    async def readyz() -> dict[str, str]:
        """Return 200 while the online store answers."""
        nonlocal ping
        # One for all callers of the moment: they need no token, and must not occupy the workers.
        if ping is None or ping.done():
            ping = asyncio.create_task(executor.run_untracked(executor.lookup.ping))
        await asyncio.shield(ping)
        return {"status": "ok"}

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        """Return the metrics in Prometheus's text format."""
        return Response(generate_latest(executor.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


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


def _to_arrow(response: FeatureResponse) -> bytes:
    streams = [response.candidates] if response.user is None else [response.candidates, response.user]
    return b"".join(map(to_ipc, streams))


def _to_json(response: FeatureResponse) -> bytes:
    """The response by column. Missing values and NaN are null, because JSON has no NaN."""
    user = {} if response.user is None else {name: values[0] for name, values in _to_columns(response.user).items()}
    return to_json(
        {"candidates": _to_columns(response.candidates), "user": user}, inf_nan_mode="null", bytes_mode="base64"
    )


def _to_columns(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    return {
        name: [STATUS_WORDS[status] for status in column.to_pylist()] if name.startswith(STATUS) else column.to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


_RESPONSE_SCHEMA = {
    "type": "object",
    "properties": {
        "candidates": {
            "type": "object",
            "description": "One list for each column, with one value for each candidate: product_id, "
            f"<view>__<feature>, {STATUS}<view> ({', '.join(STATUS_WORDS)}), {EVENT_TIMESTAMP}<view>.",
            "additionalProperties": {"type": "array"},
        },
        "user": {"type": "object", "description": "The same columns for the user, with one value each."},
    },
    "required": ["candidates", "user"],
}


def describe_errors() -> dict[str, Any]:
    """Return the error responses of a route that answers requests, by status, as OpenAPI has them."""
    texts = {code.value: code.name for code in _CODES}
    texts |= {408: "The body did not arrive in time.", 413: "The body is too long."}
    content = {"application/json": {"schema": _ERROR_SCHEMA}}
    return {str(status): {"description": text, "content": content} for status, text in texts.items()}


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
