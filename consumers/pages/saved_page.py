"""The pages of saved searches.

GET  /searches               their list
POST /searches               saves a search; field `name`, and those of the search
GET  /searches/NAME          what came and went since the search was last saved
POST /searches/NAME          saves what it finds now, so that later changes are counted from here
POST /searches/NAME/remove   removes it
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from consumers.pages.cards import make_cards
from consumers.pages.search_page import run_search, show_search
from consumers.pages.search_query import SearchQuery, read_query
from consumers.pages.shop import Shop
from consumers.search.calibration import read_calibration
from consumers.search.saved import SelectionChanges, compare_selection, read_selection, save_selection
from consumers.search.selection import DEFAULT_TOP_K, SearchResult, search_products
from feature_repo.errors import InvalidInputError, UsageError, VitrineError
from feature_repo.index import saved_searches
from feature_repo.index.filters import ProductFilter
from feature_repo.schema import PRODUCT_ID
from feature_repo.server.page_service import PageRequest, PageService
from feature_repo.web.pages import PAGE_HEADERS, quote_path

PATH = "/searches"


@dataclass(frozen=True)
class SavedLine:
    """A saved search in the list."""

    name: str
    sentence: str
    filters: list[str]
    products: int
    """Products that the last run found."""
    run_at: str
    error: str | None = None
    """Why it cannot be read; the other fields are then empty."""


def create_router(service: PageService, shop: Shop) -> APIRouter:
    """Return the routes."""
    router = APIRouter(include_in_schema=False)
    lock = threading.Lock()

    @router.get(PATH)
    async def list_saved(request: Request) -> Response:
        return await service.answer(
            request, lambda page_request: page_request.render("searches.html", searches=_list_lines(shop))
        )

    @router.post(PATH)
    async def save(request: Request) -> Response:
        def work(page_request: PageRequest, form: FormData) -> Response:
            with lock:
                return _save(shop, page_request, form)

        return await service.answer_form(request, work)

    @router.get(PATH + "/{name}")
    async def show(name: str, request: Request) -> Response:
        return await service.answer(request, lambda page_request: _show_changes(shop, page_request, name))

    @router.post(PATH + "/{name}")
    async def mark_seen(name: str, request: Request) -> Response:
        def work(page_request: PageRequest, form: FormData) -> Response:
            with lock:
                result, options, version = _run_again(shop, name)
                save_selection(shop.settings, name, result, options, page_request.now, encoder_version=version)
            return RedirectResponse(PATH, 303, headers=dict(PAGE_HEADERS))

        return await service.answer_form(request, work)

    @router.post(PATH + "/{name}/remove")
    async def remove(name: str, request: Request) -> Response:
        def work(page_request: PageRequest, form: FormData) -> Response:
            saved_searches.remove_search(shop.settings.local, name)
            return RedirectResponse(PATH, 303, headers=dict(PAGE_HEADERS))

        return await service.answer_form(request, work)

    return router


def describe_filter(where: ProductFilter) -> list[str]:
    """Return each condition of a filter as a text."""
    conditions = [*where.categories, *where.brands]
    if where.price_min is not None or where.price_max is not None:
        low = "0" if where.price_min is None else f"{where.price_min:g}"
        conditions.append(f"price from {low}" + ("" if where.price_max is None else f" to {where.price_max:g}"))
    conditions += [f"{tag} {value}" for tag, value in where.tags.items()]
    return conditions + ["in stock"] * where.in_stock


def _save(shop: Shop, page_request: PageRequest, form: FormData) -> Response:
    query, name = read_query(form), str(form.get("name", "")).strip()
    try:
        saved_searches.check_name(name)
        if name in saved_searches.list_names(shop.settings.local):
            raise InvalidInputError(f"a search is saved as {name!r} already; choose another name, or remove that one")
    except InvalidInputError as refused:
        return show_search(shop, page_request, query, notice=str(refused))
    result = run_search(shop, query)
    options = {
        "top_k": DEFAULT_TOP_K,
        "collapse": query.collapse,
        "calibration": None if shop.calibration_file is None else str(shop.calibration_file.resolve()),
    }
    version = shop.require_index().encoder_version
    save_selection(shop.settings, name, result, options, page_request.now, encoder_version=version)
    return RedirectResponse(f"{PATH}/{quote_path(name)}", 303, headers=dict(PAGE_HEADERS))


def _list_lines(shop: Shop) -> list[SavedLine]:
    lines = []
    for name in saved_searches.list_names(shop.settings.local):
        try:
            search = saved_searches.read_search(shop.settings.local, name)
            _, where, _ = read_selection(shop.settings, name)
        except VitrineError:  # one damaged file must not hide the others
            lines.append(SavedLine(name, "", [], 0, "", error="its file is damaged; remove it and save it again"))
        else:
            filters = describe_filter(where)
            lines.append(SavedLine(name, search.sentence, filters, len(search.product_ids), search.run_at))
    return lines


def _show_changes(shop: Shop, page_request: PageRequest, name: str) -> Response:
    before = saved_searches.read_search(shop.settings.local, name)
    result, _, version = _run_again(shop, name)
    changes: SelectionChanges = compare_selection(before, result.products[PRODUCT_ID].to_pylist(), version)
    kept = [one for one in before.product_ids if one not in set(changes.went)]
    return page_request.render(
        "saved.html",
        search=before,
        filters=describe_filter(result.where),
        changes=changes,
        came=make_cards(shop, changes.came),
        went=make_cards(shop, changes.went),
        kept=len(kept),
        open_url=_find_search_url(result),
    )


def _run_again(shop: Shop, name: str) -> tuple[SearchResult, dict[str, Any], str]:
    """Return what a saved search finds now, its further options, and the encoder version of the index.

    Raises:
        UsageError: the service has no towers, or the name is not one of a search.
        NotFoundError: there is no such search or no index, or no product passes the filter.
        CorruptDataError: the search or its calibration is damaged.
    """
    sentence, where, options = read_selection(shop.settings, name)
    if shop.encoder is None:
        raise UsageError("this service has no towers, so it cannot run a search again; start it with --towers FOLDER")
    index = shop.require_index()
    result = search_products(
        index,
        shop.encoder,
        sentence,
        where=where,
        top_k=min(options["top_k"], max(len(index.all), DEFAULT_TOP_K)),
        calibration=None if options["calibration"] is None else read_calibration(Path(options["calibration"])),
        collapse=options["collapse"],
    )
    return result, options, index.encoder_version


def _find_search_url(result: SearchResult) -> str | None:
    """Return the URL of the search page that gives a result; None for filters that its form does not have."""
    where = result.where
    if len(where.categories) > 1 or where.brands:
        return None
    return SearchQuery(
        result.sentence.text,
        category=where.categories[0] if where.categories else "",
        price_min="" if where.price_min is None else f"{where.price_min:g}",
        price_max="" if where.price_max is None else f"{where.price_max:g}",
        in_stock=where.in_stock,
        tags=tuple(where.tags.items()),
    ).make_url()
