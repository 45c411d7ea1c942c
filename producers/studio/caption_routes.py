"""Captions over HTTP.

POST /v1/captions   a request (caption_request.py) as JSON, or as a form with the picture as a file. The response is
                    JSON. With `Accept: text/event-stream` it is a stream of server-sent events, with
                    `Accept: application/x-ndjson` one of JSON objects, one a line:

    queued      {"place"}: the number of requests in progress, with this one
    prepared    the picture is decoded
    started     the model begins
    done        the response
    error       {"error", "message"} instead of `done`
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from feature_repo.errors import InvalidInputError
from feature_repo.server.application import describe_errors, read_body
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.server.request_log import RequestTracker
from producers.studio.caption_request import CaptionRequest, describe_request, parse_form, parse_json
from producers.studio.caption_service import CaptionService, describe_answer, format_event

PATH = "/v1/captions"
PROTOCOL = "http"
EVENTS, LINES = "text/event-stream", "application/x-ndjson"
MAX_FIELDS = 40

_FACT = {
    "type": "object",
    "properties": {
        "attribute": {"type": "string"},
        "value": {"type": "string"},
        "probability": {"type": "number", "description": "Calibrated, by the tags; 1 if the caller gave it."},
        "source": {"enum": ["tags", "caller"]},
    },
}
_RESPONSE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "candidates": {
            "type": "array",
            "description": "Lines, the best first; none if there is a missing_reason.",
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "score": {"type": "number", "description": "What the lines are ranked by."},
                    "fluency": {"type": "number", "description": "Mean log probability of a token."},
                    "match": {"type": "number", "description": "Cosine of line and picture."},
                    "stated": {"type": "array", "description": "What the line states.", "items": _FACT},
                },
            },
        },
        "missing_reason": {"type": ["string", "null"]},
        "sure": {"type": "array", "description": "All that is sure enough to be stated.", "items": _FACT},
        "style": {"type": "string"},
        "language": {"type": "string"},
        "encoder_version": {"type": "string"},
    },
    "required": ["candidates", "missing_reason", "sure", "style", "language", "encoder_version"],
}


def create_router(tracker: RequestTracker, captions: CaptionService) -> APIRouter:
    """Return the route.

    Args:
        tracker: logs and counts the requests.
        captions: answers them; the caller closes it.
    """
    router = APIRouter()
    bodies = {"application/json": {"schema": describe_request(captions.limits)}}
    bodies["multipart/form-data"] = {"schema": {"type": "object"}}
    success = {
        "description": "The lines.",
        "content": {
            "application/json": {"schema": _RESPONSE_SCHEMA},
            EVENTS: {"schema": {"type": "string"}},
            LINES: {"schema": {"type": "string"}},
        },
    }
    description = {
        "requestBody": {"required": True, "content": bodies},
        "responses": {"200": success, **describe_errors()},
    }

    @router.post(PATH, openapi_extra=description)
    async def write_captions(request: Request) -> Response:
        """Return caption lines for a product or a picture, what they state, and how sure that is."""
        accept = request.headers.get("accept", "")
        with ExitStack() as stack:
            context = stack.enter_context(tracker.track(PROTOCOL, request.headers.get("x-request-id")))
            context.service = "captions"
            caption_request = await _read_request(request, captions)
            stack.enter_context(captions.reserve())
            if EVENTS not in accept and LINES not in accept:
                answer = await captions.answer(caption_request)
                context.rows = len(answer.lines)
                return JSONResponse(
                    describe_answer(answer, captions.encoder_version), headers={"x-request-id": context.id}
                )
            reservation = stack.pop_all()
        events: asyncio.Queue[tuple[str, dict[str, Any]] | None] = asyncio.Queue()
        # A task of its own: it gives the place back also if the response is never begun.
        task = asyncio.create_task(_answer_with_events(captions, caption_request, reservation, events))
        media_type = EVENTS if EVENTS in accept else LINES
        headers = {"x-request-id": context.id, "cache-control": "no-store"}
        return StreamingResponse(_send(task, events, media_type == LINES), media_type=media_type, headers=headers)

    return router


async def _read_request(request: Request, captions: CaptionService) -> CaptionRequest:
    """Return the request in a body."""
    limits = captions.limits
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return parse_json(await read_body(request, limits.deadline_seconds), limits)
    try:
        async with asyncio.timeout(limits.deadline_seconds):
            form = await request.form(max_files=1, max_fields=MAX_FIELDS)
    except TimeoutError:
        raise RequestError(ErrorCode.DEADLINE_EXCEEDED, "the form did not arrive in time", status=408) from None
    except RequestError:
        raise
    except ClientDisconnect:
        raise RequestError(ErrorCode.CANCELLED, "the caller disconnected before the form arrived") from None
    except Exception as error:  # of the parser of multipart bodies
        raise InvalidInputError(f"the body is not a form: {getattr(error, 'detail', type(error).__name__)}") from None
    try:
        return parse_form(form, limits)
    finally:
        await form.close()


async def _answer_with_events(
    captions: CaptionService,
    caption_request: CaptionRequest,
    reservation: ExitStack,
    events: "asyncio.Queue[tuple[str, dict[str, Any]] | None]",
) -> None:
    try:
        with reservation:
            events.put_nowait(("queued", {"place": captions.count_in_progress()}))
            answer = await captions.answer(caption_request, lambda event: events.put_nowait((event, {})))
            events.put_nowait(("done", describe_answer(answer, captions.encoder_version)))
    except RequestError as error:
        events.put_nowait(("error", {"error": error.code.name, "message": error.message}))
    finally:
        events.put_nowait(None)


async def _send(
    task: "asyncio.Task[None]", events: "asyncio.Queue[tuple[str, dict[str, Any]] | None]", as_lines: bool
) -> AsyncIterator[bytes]:
    try:
        while (event := await events.get()) is not None:
            yield format_event(*event, as_lines=as_lines)
    finally:
        task.cancel()  # if the caller has disconnected; otherwise it has ended
