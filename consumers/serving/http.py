"""Features over HTTP: JSON for people, an Arrow stream for programs.

    POST /v1/features   a request (ask.py) as JSON. With `Accept: application/vnd.apache.arrow.stream` the body that
                        comes back is an Arrow IPC stream of the candidates and, where the service has features of the
                        user, a second stream of one row behind the first one's end.
    GET  /v1/services   which feature services there are, and their views
    GET  /healthz       200 while the process lives          GET /readyz  200 while the store answers too
    GET  /metrics       Prometheus's text                    GET /openapi.json

A refusal is {"error": gRPC's word, "message": ...}; HTTP's own word where there is no such route, or none of that
method.
"""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import pyarrow as pa
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from consumers.serving import request as asking
from consumers.serving.auth import Door
from consumers.serving.errors import Code, Refused
from consumers.serving.executor import Desk
from consumers.serving.guard import Guard
from consumers.serving.response import ARROW, EVENT_TIMESTAMP, STATUS, STATUS_WORDS, Answer, to_ipc

PROTOCOL = "http"
_REFUSAL = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
    "required": ["error", "message"],
}


def create_app(desk: Desk, door: Door, *, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """The application.

    Args:
        routers: further routes; the token is asked for before them too.
    """
    app = FastAPI(
        title="Vitrine",
        version="1",
        description="Features of a user and candidates for rankers.",
        docs_url=None,  # both pages load their scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.include_router(_features(desk))
    app.include_router(_watching(desk))
    for router in routers:
        app.include_router(router)
    app.add_middleware(Guard, door=door, longest=desk.limits.bytes)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _no_such_route)
    return app


def _features(desk: Desk) -> APIRouter:
    router = APIRouter()
    codes = (
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.UNAUTHENTICATED,
        Code.RESOURCE_EXHAUSTED,
        Code.DEADLINE_EXCEEDED,
        Code.UNAVAILABLE,
    )

    @router.post(
        "/v1/features",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": asking.schema(desk.limits.ids)}},
            },
            "responses": {
                "200": {
                    "description": "The features, by column.",
                    "content": {"application/json": {"schema": _ANSWER}, ARROW: {"schema": {"type": "string"}}},
                },
                **{str(code.value): _said(code.name) for code in (*codes,)},
                "408": _said("the body did not come in time"),
                "413": _said("the body is too long"),
            },
        },
    )
    async def features(request: Request) -> Response:
        """The joined features of a user and candidates."""
        wants_arrow = ARROW in request.headers.get("accept", "")
        with desk.visit(PROTOCOL, request.headers.get("x-request-id")) as visit:
            data = await _body(request, desk.limits.deadline)
            body = await desk.serve_async(data, visit, _as_arrow if wants_arrow else _as_json)
        return Response(
            body, media_type=ARROW if wants_arrow else "application/json", headers={"x-request-id": visit.id}
        )

    @router.get("/v1/services", responses={503: {"description": Code.UNAVAILABLE.name}})
    async def services() -> dict[str, list[str]]:
        """Of each feature service, its views."""
        return await desk.look(desk.lookup.services)

    return router


def _watching(desk: Desk) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": Code.UNAVAILABLE.name}})
    async def readyz() -> dict[str, str]:
        """Whether the online store answers."""
        await desk.look(desk.lookup.check)
        return {"status": "ok"}

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        """What Prometheus reads."""
        return Response(generate_latest(desk.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


async def _body(request: Request, seconds: float) -> bytes:
    """What the caller sends, if all of it comes within so many seconds.

    Raises:
        Refused: it does not, or the caller hung up.
    """
    try:
        return await asyncio.wait_for(request.body(), seconds)
    except TimeoutError:
        raise Refused(Code.DEADLINE_EXCEEDED, "the deadline passed before the body came", status=408) from None
    except ClientDisconnect:
        raise Refused(Code.CANCELLED, "the caller hung up before the body came") from None


def _as_arrow(found: Answer) -> bytes:
    streams = [found.candidates] if found.user is None else [found.candidates, found.user]
    return b"".join(map(to_ipc, streams))


def _as_json(found: Answer) -> bytes:
    """By column; a missing value is null, and so is a NaN, which JSON has no word for."""
    user = {} if found.user is None else {name: values[0] for name, values in _columns(found.user).items()}
    return to_json({"candidates": _columns(found.candidates), "user": user}, inf_nan_mode="null", bytes_mode="base64")


def _columns(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    return {
        name: [STATUS_WORDS[status] for status in column.to_pylist()] if name.startswith(STATUS) else column.to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


_ANSWER = {
    "type": "object",
    "properties": {
        "candidates": {
            "type": "object",
            "description": f"Of each column a value a candidate: product_id, <view>__<feature>, {STATUS}<view> "
            f"({', '.join(STATUS_WORDS)}), {EVENT_TIMESTAMP}<view>.",
            "additionalProperties": {"type": "array"},
        },
        "user": {"type": "object", "description": "The same columns of the user, one value each."},
    },
    "required": ["candidates", "user"],
}


def _said(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _REFUSAL}}}


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"retry-after": "1"} if error.code is Code.RESOURCE_EXHAUSTED else {}
    if error.status == HTTPStatus.REQUEST_TIMEOUT:  # what comes yet would be taken for the next request
        headers["connection"] = "close"
    return JSONResponse({"error": error.code.name, "message": error.message}, error.status, headers)


def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {"error": HTTPStatus(error.status_code).name, "message": str(error.detail)}
    return JSONResponse(said, error.status_code, error.headers)
