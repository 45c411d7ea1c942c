"""Style sheets, scripts and icons of pages: read once, served under a name that changes with the content."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from fastapi import APIRouter, Request, Response

MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
PREFIX = "/assets/"
"""Beginning of their paths. They need no token: the page that asks for it uses them."""
_YEAR = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """A file that pages load."""

    content: bytes
    media_type: str
    digest: str
    """Hex digits that depend on the content."""


class Assets:
    """The files of some folders whose suffix is one of MEDIA_TYPES.

    Args:
        folders: of two files with one name, that of the later folder is served.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._files = {
            file.name: Asset(content := file.read_bytes(), MEDIA_TYPES[file.suffix], blake2b(content).hexdigest()[:12])
            for folder in folders
            for file in sorted(folder.iterdir())
            if file.suffix in MEDIA_TYPES
        }

    def find_url(self, name: str) -> str:
        """Return the path of a file. It changes with the content, so browsers may keep what they got.

        Raises:
            KeyError: there is no such file.
        """
        return f"{PREFIX}{name}?v={self._files[name].digest}"

    def create_router(self) -> APIRouter:
        """Return the route of the files. It checks no token."""
        router = APIRouter(include_in_schema=False)

        @router.get(PREFIX + "{name}")
        def asset(name: str, request: Request) -> Response:
            file = self._files.get(name)
            if file is None:
                return Response("no such file\n", 404, media_type="text/plain")
            is_current = request.query_params.get("v") == file.digest
            headers = {
                "etag": f'"{file.digest}"',
                "cache-control": _YEAR if is_current else "no-cache",
                "x-content-type-options": "nosniff",
            }
            if has_etag(request, headers["etag"]):
                return Response(status_code=304, headers=headers)
            return Response(file.content, headers=headers | {"content-type": file.media_type})

        return router


def has_etag(request: Request, etag: str) -> bool:
    """Return whether a browser says, by `If-None-Match`, that it has the version `etag` of a resource."""
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known
