"""The page at / and /docs: the server's routes, from its OpenAPI description. It loads nothing else."""

from collections.abc import Sequence
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Vitrine</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; }}
:root {{ color-scheme: light dark; }}
td {{ padding: 4px 16px 4px 0; vertical-align: top; }} code {{ font-size: 14px; }}
</style></head><body>
<h1>Vitrine</h1>
<p>{text} For programs: <a href="/openapi.json">openapi.json</a>.{pages}</p>
<table>{rows}</table>
<p>Example: <code>curl -H 'authorization: Bearer TOKEN' --json '{example}' URL{example_path}</code></p>
</body></html>
"""


def create_router(
    app: FastAPI, paths: Sequence[str], pages: Sequence[tuple[str, str]], example_path: str, example: str
) -> APIRouter:
    """Return the page's routes.

    Args:
        app: it is described as it is at the first request.
        paths: where the page is.
        pages: name and path of the pages for people.
        example_path: route of an example.
        example: JSON body of the example.
    """
    router = APIRouter(include_in_schema=False)

    def index() -> HTMLResponse:
        return HTMLResponse(_render(app.openapi(), pages, example_path, example), headers=HEADERS)

    for path in paths:
        router.add_api_route(path, index, response_class=HTMLResponse)
    return router


def _render(description: dict[str, Any], pages: Sequence[tuple[str, str]], example_path: str, example: str) -> str:
    rows = []
    for path, methods in description["paths"].items():
        name = f"<code>{escape(path)}</code>"
        for method, operation in methods.items():
            cell = f'<a href="{escape(path)}">{name}</a>' if method == "get" else name
            text = escape(operation.get("description", operation.get("summary", "")).partition("\n")[0])
            rows.append(f"<tr><td>{method.upper()}</td><td>{cell}</td><td>{text}</td></tr>")
    links = ", ".join(f'<a href="{escape(path)}">{escape(name)}</a>' for name, path in pages)
    for_people = f" For people: {links}." if links else ""
    return _PAGE.format(
        text=escape(description["info"]["description"]),
        rows="\n".join(rows),
        example=escape(example, quote=False),
        example_path=example_path,
        pages=for_people,
    )
