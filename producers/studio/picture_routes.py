"""Generated pictures over HTTP.

POST   /v1/pictures              a request (picture_request.py) as JSON: 202 and the job, which waits
GET    /v1/pictures              all jobs, the newest first
GET    /v1/pictures/ID           a job: its state, its place in the queue, its finished steps and pictures
GET    /v1/pictures/ID/NUMBER    a picture as PNG; NUMBER is from 0
DELETE /v1/pictures/ID           cancels a job, and deletes it with its pictures
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from feature_repo.server.application import describe_errors, read_body
from feature_repo.server.request_log import RequestTracker
from producers.studio.picture_queue import JobProgress, PictureQueue
from producers.studio.picture_request import describe_request, parse_json

PATH = "/v1/pictures"
PROTOCOL = "http"
BODY_SECONDS = 5.0
"""Time in which a request must arrive."""


def create_router(tracker: RequestTracker, queue: PictureQueue) -> APIRouter:
    """Return the routes.

    Args:
        tracker: logs and counts the requests.
        queue: generates pictures.
    """
    router = APIRouter()
    errors = describe_errors()
    body = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": describe_request(queue.limits)}},
        },
        "responses": errors,
    }

    def respond(request: Request, work: Callable[[], Response]) -> Response:
        with tracker.track(PROTOCOL, request.headers.get("x-request-id")) as context:
            context.service = "pictures"
            response = work()
        response.headers["x-request-id"] = context.id
        return response

    def submit(data: bytes) -> Response:
        progress = queue.submit(parse_json(data, queue.limits))
        return JSONResponse(describe_job(progress), 202, {"location": f"{PATH}/{progress.job.id}"})

    def delete(job_id: str) -> Response:
        queue.delete(job_id)
        return Response(status_code=204)

    @router.post(PATH, status_code=202, openapi_extra=body)
    async def generate_pictures(request: Request) -> Response:
        """Queue a job that generates pictures of a sentence."""
        data = await read_body(request, BODY_SECONDS)
        return await run_in_threadpool(respond, request, lambda: submit(data))  # it writes a file

    @router.get(PATH)
    def list_jobs(request: Request) -> Response:
        """Return all jobs of generating pictures."""
        return respond(request, lambda: JSONResponse([describe_job(one) for one in queue.list_jobs()]))

    @router.get(PATH + "/{job_id}", openapi_extra={"responses": errors})
    def find_job(request: Request, job_id: str) -> Response:
        """Return a job: its state, place, steps and pictures."""
        return respond(request, lambda: JSONResponse(describe_job(queue.find(job_id))))

    @router.get(PATH + "/{job_id}/{number}", openapi_extra={"responses": errors})
    def read_picture(request: Request, job_id: str, number: str) -> Response:
        """Return a generated picture as PNG."""
        return respond(request, lambda: Response(queue.store.read_picture(job_id, number), media_type="image/png"))

    @router.delete(PATH + "/{job_id}", status_code=204, openapi_extra={"responses": errors})
    def delete_job(request: Request, job_id: str) -> Response:
        """Cancel a job, and delete it with its pictures."""
        return respond(request, lambda: delete(job_id))

    return router


def describe_job(progress: JobProgress) -> dict[str, Any]:
    """Return a job as JSON can hold it, with the paths of its finished pictures."""
    job = progress.job
    return {
        **asdict(job),
        "created_at": job.created_at.isoformat(),
        "ended_at": None if job.ended_at is None else job.ended_at.isoformat(),
        "pictures": [f"{PATH}/{job.id}/{number}" for number in range(job.pictures)],
        "place": progress.place,
        "step": progress.step,
        "total_steps": progress.total_steps,
    }
