"""The studio as an HTTP application: captions, generated pictures, their pages, and the routes of every server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import RedirectResponse

from feature_repo.auth import ServerAccess
from feature_repo.server.application import ServerDescription, create_server_app
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.server.page_service import PageService, require_own_name
from feature_repo.server.request_log import RequestTracker
from feature_repo.serving_limits import PageLimits
from feature_repo.web.pages import Pages
from feature_repo.web.sessions import is_from_other_site
from producers.captions.edit_log import EditLog
from producers.studio import caption_page, caption_routes, picture_page, picture_routes
from producers.studio.caption_service import CaptionService
from producers.studio.picture_queue import PictureQueue

_DESCRIPTION = ServerDescription(
    "Caption lines and generated pictures for merchants.",
    caption_routes.PATH,
    '{"product_id": "p00001", "style": "lively", "count": 4}',
)
DEFAULT_BODY_BYTES = 65_536
"""Size of the largest body on routes that take neither captions nor pictures."""


@dataclass(frozen=True)
class StudioApplication:
    """The application, and what has to be closed at its end."""

    app: FastAPI
    pages: PageService


def create_studio_app(
    captions: CaptionService,
    edits: EditLog,
    queue: PictureQueue | None,
    access: ServerAccess,
    tracker: RequestTracker,
    *,
    serve_url: str | None,
    clock: Callable[[], datetime],
) -> StudioApplication:
    """Return the application. The caller serves it, and closes `captions`, `queue` and the page service.

    Args:
        captions: writes lines.
        edits: keeps merchants' edits.
        queue: generates pictures; None: there are no routes for them.
        access: the token that every route needs. Its host and certificate are not used.
        tracker: logs and counts the requests.
        serve_url: address of `consume serve --pages`, without a slash at the end, to which pages link; None: no links.
        clock: returns the current time with its UTC offset.
    """
    limits = PageLimits(max_upload_bytes=captions.limits.max_picture_bytes + DEFAULT_BODY_BYTES)
    pages = Pages([Path(__file__).parent], _list_navigation(queue, serve_url), has_sign_in=access.token is not None)
    service = PageService(tracker, access, pages, limits, clock)
    api = APIRouter(dependencies=[Depends(_refuse_other_sites(access))])
    api.include_router(caption_routes.create_router(tracker, captions))
    routers: list[APIRouter] = [
        _start_page(),
        caption_page.create_router(service, captions, edits, serve_url),
    ]
    body_limits = {
        caption_routes.PATH: captions.limits.max_request_bytes,
        caption_page.PATH: limits.max_upload_bytes,
    }
    if queue is not None:
        api.include_router(picture_routes.create_router(tracker, queue))
        routers.append(picture_page.create_router(service, queue, serve_url))
        body_limits[picture_routes.PATH] = queue.limits.max_request_bytes

    routers.append(api)

    async def check_ready() -> None:
        if not captions.is_running or (queue is not None and not queue.is_running):
            raise RequestError(ErrorCode.UNAVAILABLE, "the thread of a model has ended; the log has the reason")

    app = create_server_app(
        _DESCRIPTION,
        routers,
        access,
        tracker.metrics,
        check_ready,
        pages=pages,
        max_body_bytes=DEFAULT_BODY_BYTES,
        body_limits=body_limits,
        has_start_page=False,
    )
    return StudioApplication(app, service)


def _refuse_other_sites(access: ServerAccess) -> Callable[[Request], None]:
    """Return a check of requests to the routes of programs, which start and delete jobs.

    Without a token, a page of any site could make the browser of someone on this machine send them.
    """

    def check(request: Request) -> None:
        require_own_name(request, access)
        if access.token is None and is_from_other_site(request.headers.get("sec-fetch-site")):
            message = "a page of another site made the browser send it; start the studio with --token-file"
            raise RequestError(ErrorCode.INVALID_ARGUMENT, message, status=403)

    return check


def _list_navigation(queue: PictureQueue | None, serve_url: str | None) -> Sequence[tuple[str, str]]:
    own = [("Captions", caption_page.PATH), *([("Pictures", picture_page.PATH)] if queue is not None else [])]
    others = [] if serve_url is None else [("Search", f"{serve_url}/search"), ("Judge pairs", f"{serve_url}/labels")]
    return [*own, *others, ("API", "/docs")]


def _start_page() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def start() -> RedirectResponse:
        return RedirectResponse(caption_page.PATH, 303)

    return router
