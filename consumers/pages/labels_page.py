"""The pages on which people judge pairs.

    GET  /labels           the samples and how far they are
    POST /labels           fields `labeller` and `sample`: remembers the name, and begins
    GET  /labels/judge     two products side by side; field `sample`
    GET  /labels/pairs     the next pairs as JSON; fields `sample` and `without`
    POST /labels/answers   fields `pair_id` and `label`, one of pairs.labels.PAIR_LABELS
    POST /labels/undo      takes the last answer back

Without a script each answer loads the page again. The script (judge.js) asks for pairs ahead, shows the next one at
once, and sends the answers one after the other. A response says nothing about a pair but its id and what the shop
states about its products, so that labellers do not see which pairs are repeats.
"""

import json
from typing import Any
from urllib.parse import quote, unquote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.datastructures import FormData

from consumers.labels.judging import JudgingBook, Row, SampleProgress, check_labeller
from consumers.pages import pictures
from consumers.pages.cards import make_url
from consumers.pages.shop import Product, Shop
from feature_repo.errors import InvalidInputError
from feature_repo.pairs.labels import PAIR_LABELS
from feature_repo.server.page_service import PageRequest, PageService, wants_json
from feature_repo.web.pages import PAGE_HEADERS, format_price

PATH = "/labels"
COOKIE = "vitrine_labeller"
COOKIE_SECONDS = 365 * 24 * 3600
AHEAD = 6
"""Pairs that the script has ahead."""
MAX_KNOWN = 100
"""Most pairs that a script may say to have already."""
KEYS = dict(zip("1234", PAIR_LABELS, strict=True))
"""Key of each answer."""
PICTURE_SIDE = 640


def create_router(service: PageService, shop: Shop) -> APIRouter:
    """Return the routes."""
    router = APIRouter(include_in_schema=False)
    book = JudgingBook(shop.settings)

    @router.get(PATH)
    async def show_samples(request: Request) -> Response:
        return await service.answer(request, lambda page_request: _show_samples(book, page_request))

    @router.post(PATH)
    async def begin(request: Request) -> Response:
        return await service.answer_form(request, lambda page_request, form: _begin(book, page_request, form))

    @router.get(f"{PATH}/judge")
    async def judge(request: Request) -> Response:
        sample = request.query_params.get("sample", "")
        return await service.answer(request, lambda page_request: _show_pair(shop, book, page_request, sample))

    @router.get(f"{PATH}/pairs")
    async def list_pairs(request: Request) -> Response:
        sample, without = request.query_params.get("sample", ""), request.query_params.get("without", "")
        return await service.answer(
            request, lambda page_request: _list_pairs(shop, book, page_request, sample, without)
        )

    @router.post(f"{PATH}/answers")
    async def answer(request: Request) -> Response:
        return await service.answer_form(
            request, lambda page_request, form: _answer(shop, book, page_request, request, form)
        )

    @router.post(f"{PATH}/undo")
    async def undo(request: Request) -> Response:
        return await service.answer_form(
            request, lambda page_request, form: _undo(shop, book, page_request, request, form)
        )

    return router


def _show_samples(book: JudgingBook, page_request: PageRequest, *, error: str | None = None) -> Response:
    return page_request.render(
        "labels.html",
        status=200 if error is None else 400,
        samples=book.list_samples(),
        labeller=_read_labeller(page_request) or "",
        error=error,
    )


def _begin(book: JudgingBook, page_request: PageRequest, form: FormData) -> Response:
    try:
        labeller = check_labeller(str(form.get("labeller", "")))
    except InvalidInputError as refused:
        return _show_samples(book, page_request, error=str(refused))
    response = _redirect(str(form.get("sample", "")))
    response.set_cookie(COOKIE, quote(labeller), max_age=COOKIE_SECONDS, path=PATH, httponly=True, samesite="strict")
    return response


def _show_pair(shop: Shop, book: JudgingBook, page_request: PageRequest, sample: str) -> Response:
    labeller = _read_labeller(page_request)
    if labeller is None:
        return RedirectResponse(PATH, 303, headers=dict(PAGE_HEADERS))
    rows, progress = book.draw_pairs(sample, labeller, AHEAD, page_request.now)
    pairs = _describe_pairs(shop, rows)
    return page_request.render(
        "judge.html",
        sample=sample,
        labeller=labeller,
        pair=pairs[0] if pairs else None,
        pairs=json.dumps(pairs, ensure_ascii=False),
        progress=_describe_progress(progress, labeller),
        keys=KEYS,
    )


def _list_pairs(shop: Shop, book: JudgingBook, page_request: PageRequest, sample: str, without: str) -> Response:
    labeller = _require_labeller(page_request)
    known = [one for one in without.split(",") if one][:MAX_KNOWN]
    rows, progress = book.draw_pairs(sample, labeller, max(1, AHEAD - len(known)), page_request.now, without=known)
    return _respond(shop, rows, progress, labeller)


def _answer(shop: Shop, book: JudgingBook, page_request: PageRequest, request: Request, form: FormData) -> Response:
    labeller = _require_labeller(page_request)
    book.record_answer(str(form.get("pair_id", "")), str(form.get("label", "")), labeller, page_request.now)
    sample = str(form.get("sample", ""))
    if not wants_json(request):
        return _redirect(sample)
    return _list_pairs(shop, book, page_request, sample, str(form.get("without", "")))


def _undo(shop: Shop, book: JudgingBook, page_request: PageRequest, request: Request, form: FormData) -> Response:
    labeller, sample = _require_labeller(page_request), str(form.get("sample", ""))
    row = book.take_back(sample, labeller, page_request.now)
    if not wants_json(request):
        return _redirect(sample)
    _, progress = book.draw_pairs(sample, labeller, 0, page_request.now)
    return _respond(shop, [row], progress, labeller)


def _respond(shop: Shop, rows: list[Row], progress: SampleProgress, labeller: str) -> Response:
    content = {"pairs": _describe_pairs(shop, rows), "progress": _describe_progress(progress, labeller)}
    return JSONResponse(content, headers=dict(PAGE_HEADERS))


def _redirect(sample: str) -> Response:
    return RedirectResponse(f"{PATH}/judge?{urlencode({'sample': sample})}", 303, headers=dict(PAGE_HEADERS))


def _describe_pairs(shop: Shop, rows: list[Row]) -> list[dict[str, Any]]:
    """Return what a labeller may know of some pairs."""
    found = shop.find_products([row[side] for row in rows for side in ("product_id_l", "product_id_r")])
    return [
        {
            "pair_id": row["pair_id"],
            **{
                side: _describe_product(found.get(row[name]), row[name])
                for side, name in (("left", "product_id_l"), ("right", "product_id_r"))
            },
        }
        for row in rows
    ]


def _describe_product(product: Product | None, product_id: str) -> dict[str, Any]:
    if product is None:
        return {"title": f"{product_id} (not in the catalogue any more)", "facts": [], "picture": None, "url": None}
    facts = [] if product.price is None else [format_price(product.price)]
    facts += [one for one in (product.brand, product.category, product.seller_id) if one]
    return {
        "title": product.title or "no title",
        "facts": facts,
        "picture": pictures.make_url(product, PICTURE_SIDE),
        "url": make_url(product_id),
    }


def _describe_progress(progress: SampleProgress, labeller: str) -> dict[str, int]:
    return {"pairs": progress.pairs, "judged": progress.judged, "own": progress.by_labeller.get(labeller, 0)}


def _read_labeller(page_request: PageRequest) -> str | None:
    """Return the labeller's name that the browser remembers; None if there is none."""
    try:
        return check_labeller(unquote(page_request.cookies.get(COOKIE, "")))
    except InvalidInputError:
        return None


def _require_labeller(page_request: PageRequest) -> str:
    labeller = _read_labeller(page_request)
    if labeller is None:
        raise InvalidInputError(f"nobody is named as the labeller; give a name at {PATH} first")
    return labeller
