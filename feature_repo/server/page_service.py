"""Answers page requests: a session for each browser, work in threads of its own, error pages.

Page requests are counted and logged like the requests of programs, under the protocol `page`. A pool of threads with
its own queue does their work, so slow pages delay other pages and not the requests of programs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from feature_repo.auth import ServerAccess, is_loopback
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.server.request_log import RequestTracker
from feature_repo.server.workers import WorkerPool
from feature_repo.serving_limits import PageLimits
from feature_repo.web.pages import PAGE_HEADERS, Pages
from feature_repo.web.sessions import (
    COOKIE,
    FORM_TOKEN,
    SessionSigner,
    is_from_other_site,
)

PROTOCOL = "page"
MAX_FIELDS = 40
"""Most fields of a form."""
_HEADINGS = {
    400: "This cannot be done",
    403: "This form has expired",
    404: "There is no such page",
    409: "Someone else was first",
    413: "This is too large",
    429: "The service is busy",
    503: "The service is not ready",
    504: "This took too long",
}


@dataclass(frozen=True)
class PageRequest:
    """A browser's request for a page."""

    path: str
    form_token: str
    """Hidden field of the forms on the page."""
    cookies: dict[str, str]
    pages: Pages
    now: datetime
    """Time of the request, with its UTC offset."""

    def render(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """Return a page; see `Pages.render`."""
        return self.pages.render(template, status=status, path=self.path, form_token=self.form_token, **values)


class PageService:
    """Answers the page requests of a server. `close` stops its threads.

    Args:
        tracker: counts and logs the requests.
        access: the server's token; without one, pages are shown under names of the loopback interface only.
        pages: the templates.
        limits: how much page requests may take.
        clock: returns the current time with its UTC offset.
    """

    def __init__(
        self,
        tracker: RequestTracker,
        access: ServerAccess,
        pages: Pages,
        limits: PageLimits,
        clock: Callable[[], datetime],
    ) -> None:
        self.pages = pages
        self.limits = limits
        self._tracker = tracker
        self._access = access
        self._sessions = SessionSigner(access)
        self._clock = clock
        self._pool = WorkerPool(limits.workers, limits.queue_size, tracker.metrics.in_work, name="page")

    def close(self) -> None:
        """Finish the work in progress and stop the threads."""
        self._pool.close()

    async def answer(self, request: Request, work: Callable[[PageRequest], Response]) -> Response:
        """Do the work of a page request in a thread, and return its response or an error page.

        A browser without a session gets one.

        Args:
            request: the request.
            work: makes the response. What it raises becomes an error page.
        """
        return await self._respond(request, lambda page_request: self._run(request, lambda: work(page_request)))

    async def answer_form(self, request: Request, work: Callable[[PageRequest, FormData], Response]) -> Response:
        """Do the same for a posted form, if a page of this service has made it for this session.

        Args:
            request: the request; its body is read here.
            work: makes the response from the fields.
        """

        async def respond(page_request: PageRequest) -> Response:
            form = await self._read_form(request)
            try:
                return await self._run(request, lambda: work(page_request, form))
            finally:
                await form.close()

        return await self._respond(request, respond)

    async def _respond(self, request: Request, respond: Callable[[PageRequest], Awaitable[Response]]) -> Response:
        now, known = self._clock(), request.cookies.get(COOKIE)
        session = known if known and self._sessions.is_valid(known, now) else self._sessions.create(now)
        form_token = self._sessions.make_form_token(session)
        page_request = PageRequest(request.url.path, form_token, dict(request.cookies), self.pages, now)
        try:
            require_own_name(request, self._access)
            response = await respond(page_request)
        except RequestError as error:
            response = _render_error(request, page_request, error)
        if session != known:
            response.headers.append("set-cookie", self._sessions.format_cookie(session))
        return response

    async def _run(self, request: Request, work: Callable[[], Response]) -> Response:
        with self._tracker.track(PROTOCOL, request.headers.get("x-request-id")):
            return await self._pool.run_async(work, self.limits.deadline_seconds)

    async def _read_form(self, request: Request) -> FormData:
        """Return the fields of a form. Raise RequestError for one that is not complete, or not of this session."""
        try:
            async with asyncio.timeout(self.limits.deadline_seconds):
                form = await request.form(max_files=1, max_fields=MAX_FIELDS)
        except TimeoutError:
            raise RequestError(ErrorCode.DEADLINE_EXCEEDED, "the form did not arrive in time", status=408) from None
        except HTTPException as refused:
            raise RequestError(ErrorCode.INVALID_ARGUMENT, f"this is not a form: {refused.detail}") from None
        except ClientDisconnect:
            raise RequestError(ErrorCode.CANCELLED, "the browser disconnected before the form arrived") from None
        session = request.cookies.get(COOKIE) or ""
        is_own = self._sessions.is_valid(session, self._clock()) and self._sessions.is_form_token(
            str(form.get(FORM_TOKEN, "")), session
        )
        if not is_own or is_from_other_site(request.headers.get("sec-fetch-site")):
            await form.close()
            message = "it was not made by a page of this session, and nothing was changed; load the page again"
            raise RequestError(ErrorCode.INVALID_ARGUMENT, message, status=403)
        return form


def require_own_name(request: Request, access: ServerAccess) -> None:
    """Raise RequestError if a service without a token is called under a name of another host.

    The name may be that of another site that has been pointed to this machine, whose scripts could then read and post
    (DNS rebinding).
    """
    if access.token is None and not is_loopback(request.url.hostname or ""):
        message = "a service without a token is called 127.0.0.1 or localhost; start it with --token-file"
        raise RequestError(ErrorCode.INVALID_ARGUMENT, message)


def wants_json(request: Request) -> bool:
    """Return whether a script asks, which takes JSON, and not a browser for a page."""
    return "application/json" in request.headers.get("accept", "")


def _render_error(request: Request, page_request: PageRequest, error: RequestError) -> Response:
    """Return an error as a page; as JSON for a script. After an unread body the connection is closed."""
    response: Response
    if not wants_json(request):
        heading = _HEADINGS.get(error.status, "Something went wrong")
        message = error.message[:1].upper() + error.message[1:]
        response = page_request.render("message.html", status=error.status, heading=heading, message=message)
    else:
        body = {"error": error.code.name, "message": error.message}
        response = JSONResponse(body, error.status, dict(PAGE_HEADERS))
    if error.status in (408, 413):
        response.headers["connection"] = "close"
    return response
