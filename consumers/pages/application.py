"""All pages of the service together: their routes, templates and limits."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fastapi import APIRouter

from consumers.online.reader import OnlineReader
from consumers.pages import labels_page, pictures, product_page, saved_page, search_page
from consumers.pages.shop import Shop
from consumers.serving.executor import RequestExecutor
from feature_repo.auth import ServerAccess
from feature_repo.config import Settings
from feature_repo.extras import require
from feature_repo.server.page_service import PageService
from feature_repo.serving_limits import PageLimits
from feature_repo.web.pages import Pages

NAVIGATION = (("Search", "/search"), ("Saved", "/searches"), ("Judge pairs", "/labels"))
"""Name and path of the pages that every page links to."""


@dataclass(frozen=True)
class PageApplication:
    """What a server needs to serve the pages."""

    routers: list[APIRouter]
    pages: Pages
    body_limits: Mapping[str, int]
    """Largest body in bytes, by path."""


@contextmanager
def open_pages(
    settings: Settings,
    reader: OnlineReader,
    executor: RequestExecutor,
    access: ServerAccess,
    *,
    towers: Path | None,
    triton: str | None = None,
    calibration: Path | None,
    has_status: bool,
    clock: Callable[[], datetime],
    limits: PageLimits | None = None,
) -> Iterator[PageApplication]:
    """Open what the pages show, and stop their threads at the end.

    Args:
        settings: the deployment.
        reader: of the online store.
        executor: counts and logs the requests.
        access: the token.
        towers: folder that `produce export` wrote; None: no search by a sentence or a picture.
        triton: address of a Triton server that serves the towers; None runs them in this process.
        calibration: file that `consume calibrate-search` wrote; None: default weights, and no cut-offs.
        has_status: whether the server has the status page.
        clock: returns the current time with its UTC offset.
        limits: how much page requests may take; None takes the defaults.

    Raises:
        ModuleNotFoundError: an extra is not installed.
        NotFoundError, CorruptDataError, EncoderMismatchError: of `Shop`.
    """
    require("store", "deltalake")
    require("search", "bm25s", "rjieba", "faiss", "onnxruntime", "tokenizers")
    shop, limits = Shop(settings, towers=towers, triton=triton, calibration=calibration), limits or PageLimits()
    navigation = (*NAVIGATION, *((("Status", "/status"),) if has_status else ()), ("API", "/docs"))
    pages = Pages([Path(__file__).parent], navigation, has_sign_in=access.token is not None)
    service = PageService(executor, access, pages, limits, clock)
    routers = [
        search_page.create_router(service, shop),
        saved_page.create_router(service, shop),
        product_page.create_router(service, shop, reader),
        pictures.create_router(service, shop),
        labels_page.create_router(service, shop),
    ]
    try:
        yield PageApplication(routers, pages, {search_page.PICTURE_PATH: limits.max_upload_bytes})
    finally:
        service.close()
