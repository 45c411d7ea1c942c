"""The page on which merchants caption a picture and edit the lines.

GET  /captions           the form; with `product_id` filled in
POST /captions           fields of a request (caption_request.py): the page with lines
GET  /captions/picture   a small copy of a product's picture; field `product_id`
POST /captions/edits     fields `product_id`, `caption`, `edited_caption`, `editor`: keeps an edit
"""

from typing import Any
from urllib.parse import quote, unquote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from feature_repo.arrow.text import normalize_id
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.images.decoding import UnusableImageError
from feature_repo.images.thumbnails import shrink_picture
from feature_repo.server.page_service import PageRequest, PageService
from feature_repo.web.pages import PAGE_HEADERS
from producers.captions.edit_log import CaptionEdit, EditLog
from producers.studio.caption_request import DEFAULT_COUNT, DEFAULT_LENGTH, parse_form
from producers.studio.caption_service import CaptionService
from producers.studio.caption_writer import CaptionAnswer

PATH = "/captions"
COOKIE = "vitrine_editor"
COOKIE_SECONDS = 365 * 24 * 3600
PICTURE_SIDE = 320
SHOWN_EDITS = 10
"""Saved lines of a product that its page shows, the newest ones."""


def create_router(service: PageService, captions: CaptionService, edits: EditLog, serve_url: str | None) -> APIRouter:
    """Return the routes.

    Args:
        service: answers page requests.
        captions: writes lines.
        edits: keeps the edits.
        serve_url: address of the service with the search pages, without a slash at the end; None: no links to it.
    """
    router = APIRouter(include_in_schema=False)

    def show(page_request: PageRequest, fields: dict[str, str], *, status: int = 200, **values: Any) -> Response:
        empty = {"product_id": "", "title": "", "style": "plain", "language": captions.language, "attributes": ""}
        empty |= {"length": str(DEFAULT_LENGTH), "count": str(DEFAULT_COUNT)}
        values = {"answer": None, "shown": None, "error": None, "saved": None, **values}
        product_id = values["shown"] or normalize_id(fields.get("product_id", ""))
        rows = edits.read(product_id).to_pylist()[: -SHOWN_EDITS - 1 : -1] if product_id else []
        return page_request.render(
            "captions.html",
            status=status,
            fields=empty | fields,
            limits=captions.limits,
            takes_pictures=captions.takes_pictures,
            max_upload_bytes=service.limits.max_upload_bytes,
            editor=unquote(page_request.cookies.get(COOKIE, "")),
            edits=rows,
            serve_url=serve_url,
            percent=_format_percent,
            **values | {"shown": product_id},
        )

    def show_form(page_request: PageRequest, product_id: str, saved: str) -> Response:
        return show(page_request, {"product_id": product_id}, saved=saved or None)

    def write_lines(page_request: PageRequest, form: FormData) -> Response:
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        shown = normalize_id(fields.get("product_id", "")) or None
        try:
            answer: CaptionAnswer = captions.answer_blocking(parse_form(form, captions.limits))
        except (InvalidInputError, NotFoundError) as error:
            status = 404 if isinstance(error, NotFoundError) else 400
            return show(page_request, fields, status=status, error=str(error))
        return show(page_request, fields, answer=answer, shown=shown)

    def save_edit(page_request: PageRequest, form: FormData) -> Response:
        texts = {name: " ".join(str(form.get(name, "")).split()) for name in ("caption", "edited_caption", "editor")}
        product_id = normalize_id(str(form.get("product_id", "")))
        try:
            edit = CaptionEdit(
                product_id,
                texts["caption"],
                texts["edited_caption"],
                texts["editor"] or None,
                captions.encoder_version,
            )
        except InvalidInputError as error:
            return show(page_request, {"product_id": product_id}, status=400, error=f"the line is not saved: {error}")
        edits.append(edit, page_request.now)
        captions.metrics.edits.inc()
        url = f"{PATH}?{urlencode({'product_id': product_id, 'saved': product_id})}"
        response = RedirectResponse(url, 303, headers=dict(PAGE_HEADERS))
        response.set_cookie(
            COOKIE, quote(texts["editor"]), max_age=COOKIE_SECONDS, path=PATH, httponly=True, samesite="strict"
        )
        return response

    def show_picture(product_id: str) -> Response:
        product = captions.reader.find(product_id)
        if product.picture is None:
            raise NotFoundError(f"product {product_id[:100]!r} has no picture")
        try:
            copy = shrink_picture(product.picture, PICTURE_SIDE)
        except UnusableImageError as error:
            raise NotFoundError(f"the picture of {product_id[:100]!r} cannot be shown: {error.reason}") from None
        return Response(copy, media_type="image/jpeg", headers=dict(PAGE_HEADERS))

    @router.get(PATH)
    async def get_page(request: Request) -> Response:
        product_id, saved = (request.query_params.get(name, "")[:256] for name in ("product_id", "saved"))
        return await service.answer(request, lambda page_request: show_form(page_request, product_id, saved))

    @router.post(PATH)
    async def post_page(request: Request) -> Response:
        return await service.answer_form(request, write_lines)

    @router.get(f"{PATH}/picture")
    async def get_picture(request: Request) -> Response:
        product_id = request.query_params.get("product_id", "")
        return await service.answer(request, lambda page_request: show_picture(product_id))

    @router.post(f"{PATH}/edits")
    async def post_edit(request: Request) -> Response:
        return await service.answer_form(request, save_edit)

    return router


def _format_percent(probability: float) -> str:
    """Return a probability as a percentage, rounded down: 99.97% is not 100%."""
    return f"{int(probability * 1000) / 10:g}%"
