"""Features over HTTP: JSON for people, an Arrow stream for programs.

    POST /v1/features   a request (request.py) as JSON. With `Accept: application/vnd.apache.arrow.stream` the response
                        body is an Arrow IPC stream of the candidates. If the service has features of the user, a second
                        stream of one row follows the end of the first.
    GET  /v1/services   the feature services and their views

and the routes of every server (feature_repo/server/application.py). /readyz and /v1/services answer 503 if the online
store does not answer or the server has no place for the work; /readyz also if the store lacks views or services, which
it names.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic_core import to_json

from consumers.serving.executor import RequestExecutor
from consumers.serving.http_requests import describe_post, respond
from consumers.serving.request import request_schema
from consumers.serving.response import EVENT_TIMESTAMP, STATUS, STATUS_WORDS, FeatureResponse, to_ipc
from feature_repo.auth import ServerAccess
from feature_repo.server.application import ServerDescription, create_server_app
from feature_repo.server.errors import ErrorCode
from feature_repo.server.request_log import RequestContext
from feature_repo.web.pages import Pages

if TYPE_CHECKING:
    from consumers.serving.pairs import PairExecutor

_DESCRIPTION = ServerDescription(
    "Features of a user and candidates for rankers.",
    "/v1/features",
    '{"service": "ranking", "user_id": "u-17", "product_ids": ["p-3", "p-8"]}',
)


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
    own = [_feature_routes(executor)]
    limits = dict(body_limits or {})
    if pairs is not None:
        from consumers.serving import pair_routes  # needs the extras that score pairs

        own.append(pair_routes.create_router(executor, pairs))
        limits[pair_routes.PATH] = pairs.limits.max_request_bytes
    return create_server_app(
        _DESCRIPTION,
        [*own, *routers],
        access,
        executor.metrics,
        lambda: executor.run_untracked(executor.lookup.ping),
        pages=pages or Pages((), ()),
        max_body_bytes=executor.max_request_bytes,
        body_limits=limits,
    )


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
