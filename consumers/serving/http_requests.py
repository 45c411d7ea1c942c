"""What POST routes share: the OpenAPI description, and how a request is read, executed, logged and counted."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request, Response

from consumers.serving.executor import RequestExecutor
from consumers.serving.response import ARROW
from feature_repo.server.application import describe_errors, read_body
from feature_repo.server.request_log import RequestContext

PROTOCOL = "http"


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
