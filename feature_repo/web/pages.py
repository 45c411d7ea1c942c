"""Templates of pages, and the headers of every page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from feature_repo.web.assets import Assets

PAGE_HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""A page loads files of its own server only and has no script in itself; no other site may show it in a frame."""
FOLDER = Path(__file__).parent
"""Folder of the templates and assets that all services share."""


class Pages:
    """Renders the pages of a service.

    Args:
        folders: further folders of templates and assets.
        navigation: name and path of the pages that every page links to.
        has_sign_in: whether browsers sign in; pages then have a button that ends the session.
    """

    def __init__(
        self, folders: Sequence[Path], navigation: Sequence[tuple[str, str]], *, has_sign_in: bool = False
    ) -> None:
        self.assets = Assets([FOLDER, *folders])
        self.navigation = tuple(navigation)
        self._environment = Environment(
            loader=FileSystemLoader([*folders, FOLDER]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {"asset": self.assets.find_url, "has_sign_in": has_sign_in}
        self._environment.filters |= {"path": quote_path, "number": format_number, "price": format_price}

    def render(
        self, template: str, *, status: int = 200, path: str = "", form_token: str | None = None, **values: Any
    ) -> HTMLResponse:
        """Return a page.

        Args:
            template: name of the template.
            status: of HTTP.
            path: of the request; its link in the navigation is marked.
            form_token: of the session, for forms of the page; None: the browser is not signed in.
            values: further values of the template.
        """
        page = self._environment.get_template(template).render(
            navigation=self.navigation, path=path, form_token=form_token, **values
        )
        return HTMLResponse(page, status, dict(PAGE_HEADERS))


def quote_path(text: str) -> str:
    """Return a text as one segment of a URL's path, whatever characters it has."""
    return quote(text, safe="")


def format_number(value: float) -> str:
    """Return a whole number with separators of thousands."""
    return f"{value:,.0f}"


def format_price(value: float) -> str:
    """Return a price with two decimals, without them if they are zero."""
    return f"{value:,.2f}".removesuffix(".00")
