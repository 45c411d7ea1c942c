"""Signing in: a browser sends the server's token once, and gets a session.

    GET  /sign-in    the form
    POST /sign-in    fields `token` and `next`: starts a session, and goes on to the page that was asked for
    POST /sign-out   ends the session

They need no token themselves.
"""

from collections.abc import Callable
from datetime import datetime

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from feature_repo.auth import ServerAccess
from feature_repo.web.pages import Pages
from feature_repo.web.sessions import SessionSigner, is_from_other_site, to_local_path

PATH = "/sign-in"
END_PATH = "/sign-out"


def create_router(
    access: ServerAccess, sessions: SessionSigner, pages: Pages, clock: Callable[[], datetime]
) -> APIRouter:
    """Return the routes.

    Args:
        access: the token.
        sessions: makes the sessions.
        pages: renders the form.
        clock: returns the current time with its UTC offset.
    """
    router = APIRouter(include_in_schema=False)

    @router.get(PATH)
    def show_form(request: Request) -> Response:
        wanted = to_local_path(request.query_params.get("next"))
        if access.token is None:
            return RedirectResponse(wanted, 303)
        return pages.render("sign_in.html", path=PATH, wanted=wanted, is_wrong=False)

    @router.post(PATH)
    async def sign_in(request: Request) -> Response:
        form = await request.form(max_files=0, max_fields=10)
        wanted, token = to_local_path(str(form.get("next", "/"))), str(form.get("token", "")).strip()
        is_own = not is_from_other_site(request.headers.get("sec-fetch-site"))
        if not is_own or not access.is_authorized(f"Bearer {token}"):
            return pages.render("sign_in.html", status=401, path=PATH, wanted=wanted, is_wrong=True)
        cookie = sessions.format_cookie(sessions.create(clock()))
        return RedirectResponse(wanted, 303, headers={"set-cookie": cookie})

    @router.post(END_PATH)
    def sign_out(request: Request) -> Response:
        if is_from_other_site(request.headers.get("sec-fetch-site")):
            return RedirectResponse("/", 303)
        return RedirectResponse(PATH, 303, headers={"set-cookie": sessions.format_end()})

    return router
