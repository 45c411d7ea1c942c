"""The page on which pictures are generated from sentences.

GET  /pictures               the form, the queue and the history
POST /pictures               fields of a request (picture_request.py): queues a job
GET  /pictures/jobs          the queue and the history alone, for the script of the page
GET  /pictures/ID/0.png      a picture
POST /pictures/ID/cancel     cancels a job
POST /pictures/ID/delete     deletes a job with its pictures
"""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from feature_repo.errors import InvalidInputError
from feature_repo.server.page_service import PageRequest, PageService
from feature_repo.web.pages import PAGE_HEADERS
from producers.studio.picture_queue import PictureQueue
from producers.studio.picture_request import DEFAULT_GUIDANCE, DEFAULT_STEPS, parse_fields
from producers.studio.picture_store import ENDED

PATH = "/pictures"


def create_router(service: PageService, queue: PictureQueue, serve_url: str | None) -> APIRouter:
    """Return the routes.

    Args:
        service: answers page requests.
        queue: generates pictures.
        serve_url: address of the service with the search pages, without a slash at the end; None: no links to it.
    """
    router = APIRouter(include_in_schema=False)

    def describe_jobs() -> dict[str, Any]:
        jobs = queue.list_jobs()
        return {"jobs": jobs, "has_open_jobs": any(one.job.state not in ENDED for one in jobs), "serve_url": serve_url}

    def show(page_request: PageRequest, fields: dict[str, str], *, error: str | None = None) -> Response:
        model, limits = queue.model, queue.limits
        defaults = {"sentence": "", "seed": "0", "count": "1", "steps": str(min(DEFAULT_STEPS, limits.max_steps))}
        defaults |= {"guidance": f"{DEFAULT_GUIDANCE:g}", "product_id": ""}
        defaults |= {"height": str(model.height), "width": str(model.width)}
        return page_request.render(
            "pictures.html",
            status=200 if error is None else 400,
            fields=defaults | fields,
            limits=limits,
            side_unit=model.side_unit,
            error=error,
            **describe_jobs(),
        )

    def submit(page_request: PageRequest, form: FormData) -> Response:
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        try:
            queue.submit(parse_fields(fields, queue.limits))
        except InvalidInputError as error:
            return show(page_request, fields, error=str(error))
        return _go_back()

    def send_picture(job_id: str, number: str) -> Response:
        content = queue.store.read_picture(job_id, number)
        headers = {"cache-control": "private, max-age=86400", "x-content-type-options": "nosniff"}
        return Response(content, media_type="image/png", headers=headers)

    def cancel(job_id: str) -> Response:
        queue.cancel(job_id)
        return _go_back()

    def delete(job_id: str) -> Response:
        queue.delete(job_id)
        return _go_back()

    @router.get(PATH)
    async def get_page(request: Request) -> Response:
        fields = {
            name: value[:500] for name, value in request.query_params.items() if name in ("sentence", "product_id")
        }
        return await service.answer(request, lambda page_request: show(page_request, fields))

    @router.post(PATH)
    async def post_page(request: Request) -> Response:
        return await service.answer_form(request, submit)

    @router.get(f"{PATH}/jobs")
    async def get_jobs(request: Request) -> Response:
        return await service.answer(request, lambda page_request: page_request.render("jobs.html", **describe_jobs()))

    @router.get(PATH + "/{job_id}/{number}.png")
    async def get_picture(request: Request, job_id: str, number: str) -> Response:
        return await service.answer(request, lambda page_request: send_picture(job_id, number))

    @router.post(PATH + "/{job_id}/cancel")
    async def post_cancel(request: Request, job_id: str) -> Response:
        return await service.answer_form(request, lambda page_request, form: cancel(job_id))

    @router.post(PATH + "/{job_id}/delete")
    async def post_delete(request: Request, job_id: str) -> Response:
        return await service.answer_form(request, lambda page_request, form: delete(job_id))

    return router


def _go_back() -> Response:
    return RedirectResponse(PATH, 303, headers=dict(PAGE_HEADERS))
