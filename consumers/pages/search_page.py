"""The page of a search.

GET  /search           the form; with `q`, `like` or `picture` its results
POST /search/picture   encodes a picture, and goes on to its results
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData, UploadFile

from consumers.pages import pictures
from consumers.pages.cards import Card, make_cards
from consumers.pages.search_query import PATH, SearchQuery, decode_vector, encode_vector, read_query
from consumers.pages.shop import PICTURE_VECTOR, Shop
from consumers.search.selection import DEFAULT_TOP_K, SearchResult, search_products
from consumers.search.similar import find_similar, find_vector
from feature_repo import schema
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.index.product_index import ProductIndex
from feature_repo.schema import PRODUCT_ID
from feature_repo.server.page_service import PageRequest, PageService
from feature_repo.serving_limits import PageLimits
from feature_repo.web.pages import PAGE_HEADERS

PICTURE_PATH = f"{PATH}/picture"
PAGE_SIZE = 24
"""Products of one page."""


_NO_PICTURES = "this service takes no pictures; start it with --towers FOLDER, an export with an image tower"


@dataclass(frozen=True)
class Results:
    """One page of the products that were found."""

    cards: list[Card]
    total: int
    """Products on all pages."""
    allowed: int
    """Products that the filter leaves."""
    below_cutoff: int
    """Products that are left out because they score below the cut-off of their category."""
    pages: int
    """Number of pages, at least 1."""
    page: int
    """From 1."""


def create_router(service: PageService, shop: Shop) -> APIRouter:
    """Return the routes."""
    router = APIRouter(include_in_schema=False)

    @router.get(PATH)
    async def search(request: Request) -> Response:
        query = read_query(request.query_params)
        return await service.answer(request, lambda page_request: show_search(shop, page_request, query))

    @router.post(PICTURE_PATH)
    async def search_picture(request: Request) -> Response:
        return await service.answer_form(request, lambda page_request, form: _encode_picture(shop, page_request, form))

    return router


def show_search(
    shop: Shop, page_request: PageRequest, query: SearchQuery, *, error: str | None = None, notice: str | None = None
) -> Response:
    """Return the page of a search. It shows an error of the search beside the form.

    Args:
        shop: the deployment.
        page_request: the request.
        query: the search.
        error: why it was not carried out, if that is known already.
        notice: why something else that was asked for was not done.
    """
    index = shop.find_index()
    results, status = None, 200 if error is None and notice is None else 400
    if error is None and index is not None and not query.is_empty:
        try:
            results = find_results(shop, query)
        except InvalidInputError as refused:
            error, status = str(refused), 400
        except NotFoundError as nothing:
            error = str(nothing)
    origin = shop.find_products([query.like]).get(query.like) if query.like else None
    return page_request.render(
        "search.html",
        status=status,
        query=query,
        results=results,
        error=error,
        notice=notice,
        is_indexed=index is not None,
        takes_sentences=shop.encoder is not None,
        takes_pictures=shop.takes_pictures,
        max_upload_bytes=PageLimits.max_upload_bytes,
        can_save=results is not None and bool(query.q) and not query.like and not query.picture,
        origin=origin,
        origin_picture=None if origin is None else pictures.make_url(origin, 160),
        categories=[] if index is None else index.list_values("category"),
        tags=[] if index is None else [(tag, _list_tag_values(shop, index, tag)) for tag in schema.TAGS],
        products=0 if index is None else len(index.all),
    )


def find_results(shop: Shop, query: SearchQuery) -> Results:
    """Return the asked page of a search's results; the last one if there are fewer.

    Raises:
        InvalidInputError: the sentence, the filter or the picture is not accepted.
        NotFoundError: no product passes the filter, or the product that they are to be like is not known.
        EncoderMismatchError: index, towers and calibration are of different encoders.
    """
    if query.like or query.picture:
        return _find_like(shop, query)
    result = run_search(shop, query)
    rows = result.products
    shown, pages, page = _cut_page(rows, query.page)
    ids = shown[PRODUCT_ID].to_pylist()
    cards = make_cards(
        shop,
        ids,
        reasons=dict(zip(ids, map(split_reasons, shown["reasons"].to_pylist()), strict=True)),
        measures={
            one: f"{probability:.0%} sure"
            for one, probability in zip(ids, shown["probability"].to_pylist(), strict=True)
            if probability is not None
        },
        duplicates=_read_duplicates(shown),
    )
    return Results(cards, len(rows), result.allowed, result.below_cutoff, pages, page)


def run_search(shop: Shop, query: SearchQuery) -> SearchResult:
    """Return everything that a sentence finds, without a page.

    Raises:
        InvalidInputError: the sentence or the filter is not accepted, or the service has no towers.
        NotFoundError: no product passes the filter, or there is no index.
        EncoderMismatchError: index, towers and calibration are of different encoders.
    """
    if shop.encoder is None:
        raise InvalidInputError("this service has no towers, so it takes no sentences; start it with --towers FOLDER")
    return search_products(
        shop.require_index(),
        shop.encoder,
        query.q,
        where=query.make_filter(),
        top_k=DEFAULT_TOP_K,
        calibration=shop.calibration,
        collapse=query.collapse,
        ends_at_cutoff=not query.beyond,
    )


def split_reasons(reasons: str | None) -> list[str]:
    """Return the reasons of `SearchResult.products` one by one."""
    return [part for part in (reasons or "").split("; ") if part]


def _find_like(shop: Shop, query: SearchQuery) -> Results:
    index = shop.require_index()
    if query.like:
        name, vector = find_vector(index, query.like)
    else:
        if shop.encoder is None or not shop.takes_pictures:
            raise InvalidInputError(_NO_PICTURES)
        name, vector = PICTURE_VECTOR, decode_vector(query.picture, shop.encoder.dim)
    found = find_similar(
        index,
        name,
        vector,
        where=query.make_filter(),
        top_k=DEFAULT_TOP_K,
        without=query.like or None,
        collapse=query.collapse,
    )
    shown, pages, page = _cut_page(found.products, query.page)
    ids = shown[PRODUCT_ID].to_pylist()
    kind = name.removesuffix("_vector").replace("similar", "picture and title")
    measures = {one: f"{kind} {cosine:.2f}" for one, cosine in zip(ids, shown["cosine"].to_pylist(), strict=True)}
    cards = make_cards(shop, ids, measures=measures, duplicates=_read_duplicates(shown))
    return Results(cards, len(found.products), found.allowed, 0, pages, page)


def _encode_picture(shop: Shop, page_request: PageRequest, form: FormData) -> Response:
    """Encode a sent picture, and send the browser to its results. The picture is not kept."""
    query = replace(read_query(form), q="", like="", picture="")
    picture = form.get("picture")
    if shop.encoder is None or not shop.takes_pictures:
        return show_search(shop, page_request, query, error=_NO_PICTURES)
    if not isinstance(picture, UploadFile) or not picture.size:
        return show_search(shop, page_request, query, error="no picture was sent; choose a file first")
    try:
        vector = shop.encoder.encode_pictures([picture.file.read()])[0]
    except InvalidInputError as refused:
        return show_search(shop, page_request, query, error=f"the picture cannot be used: {refused}")
    url = query.make_url(picture=encode_vector(vector))
    return RedirectResponse(url, 303, headers=dict(PAGE_HEADERS))


def _cut_page(rows: pa.Table, page: int) -> tuple[pa.Table, int, int]:
    """Return the rows of a page, the number of pages, and the page: the last one if there are fewer."""
    pages = max(1, -(-len(rows) // PAGE_SIZE))
    page = min(page, pages)
    return rows.slice((page - 1) * PAGE_SIZE, PAGE_SIZE), pages, page


def _read_duplicates(rows: pa.Table) -> dict[str, Sequence[str]]:
    ids = rows[PRODUCT_ID].to_pylist()
    return {one: text.split() for one, text in zip(ids, rows["duplicates"].to_pylist(), strict=True) if text}


def _list_tag_values(shop: Shop, index: ProductIndex, tag: str) -> list[str]:
    """Return the values of a tag that products have; ages youngest first."""
    values = index.list_values(f"tag_{tag}")
    stages = shop.settings.age_scale.stages
    return sorted(values, key=lambda value: (stages.index(value) if value in stages else len(stages), value))
