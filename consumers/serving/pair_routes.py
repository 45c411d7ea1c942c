"""Pairs over HTTP.

POST /v1/pairs   a request (pair_request.py) as JSON. With `Accept: application/vnd.apache.arrow.stream` the response
                 body is an Arrow IPC stream, as pairs.py describes it; otherwise it is JSON.
"""

from typing import Any

from fastapi import APIRouter, Request, Response

from consumers.serving.executor import RequestExecutor
from consumers.serving.http_requests import describe_post, respond
from consumers.serving.pair_request import request_schema
from consumers.serving.pairs import PairExecutor, to_json_response
from consumers.serving.response import to_ipc
from feature_repo.pairs.verifier import REASONS
from feature_repo.server.request_log import RequestContext

PATH = "/v1/pairs"

_NUMBER = {"type": ["number", "null"]}
_RESPONSE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "encoder_version": {"type": "string"},
        "verifier_version": {"type": "string"},
        "pairs": {
            "type": "array",
            "description": "One object for each pair, in the order of the request.",
            "items": {
                "type": "object",
                "properties": {
                    "probability": {"type": "number", "description": "That both are the same product; calibrated."},
                    "is_same": {"type": "boolean"},
                    "reasons": {
                        "type": "object",
                        "description": "What each adds to the log-odds; null is a veto.",
                        "properties": dict.fromkeys(REASONS, _NUMBER),
                    },
                    "vetoes": {
                        "type": "array",
                        "description": "Measures that both products state differently.",
                        "items": {"type": "string"},
                    },
                },
                "required": ["probability", "is_same", "reasons", "vetoes"],
            },
        },
    },
    "required": ["encoder_version", "verifier_version", "pairs"],
}


def create_router(executor: RequestExecutor, pairs: PairExecutor) -> APIRouter:
    """Return the route. The caller closes both executors.

    Args:
        executor: logs and counts the requests.
        pairs: answers them.
    """
    router = APIRouter()

    @router.post(PATH, openapi_extra=describe_post(request_schema(pairs.limits), _RESPONSE_SCHEMA, "The answers."))
    async def score_pairs(request: Request) -> Response:
        """Return the probability that two products are the same, and its reasons."""

        async def execute(data: bytes, context: RequestContext, wants_arrow: bool) -> bytes:
            return await pairs.execute_async(data, context, to_ipc if wants_arrow else to_json_response)

        return await respond(request, executor, execute)

    return router
