"""Small copies of the products' pictures, made when a page asks for them, and kept in memory.

    GET /pictures/ID?side=320&number=0

A copy is decoded and encoded anew, so a browser never gets a byte that the shop has sent: no script in an SVG, no file
that looks like another. `number` 0 is the product's picture, the others are its further pictures.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import pyarrow.compute as pc
from fastapi import APIRouter, Request, Response

from consumers.pages.shop import Product, Shop
from feature_repo import schema
from feature_repo.errors import NotFoundError
from feature_repo.images.decoding import UnusableImageError
from feature_repo.images.thumbnails import shrink_picture
from feature_repo.location import BucketObject
from feature_repo.offline import delta
from feature_repo.schema import PRODUCT_ID
from feature_repo.server.page_service import PageService
from feature_repo.web.assets import has_etag
from feature_repo.web.pages import quote_path

SIDES = (160, 320, 640)
"""Lengths of the longer side of a copy, in pixels."""
CACHE_BYTES = 64 * 2**20
"""Memory for copies; those that were not used for the longest time are dropped."""
_DAY = "private, max-age=86400"


class PictureCache:
    """Copies of pictures by their origin and side. Safe to share between threads."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        """Keep copies of at most `max_bytes` together."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._copies: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: tuple[str, int]) -> bytes | None:
        """Return a copy that is kept; None otherwise."""
        with self._lock:
            if key in self._copies:
                self._copies.move_to_end(key)
            return self._copies.get(key)

    def keep(self, key: tuple[str, int], copy: bytes) -> None:
        """Keep a copy, and drop others if there is no room for it."""
        with self._lock:
            self._bytes += len(copy) - len(self._copies.pop(key, b""))
            self._copies[key] = copy
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._copies.popitem(last=False)[1])


def create_router(service: PageService, shop: Shop) -> APIRouter:
    """Return the route of the pictures."""
    router = APIRouter(include_in_schema=False)
    cache = PictureCache()

    @router.get("/pictures/{product_id:path}")
    async def picture(product_id: str, request: Request) -> Response:
        side = _parse_number(request.query_params.get("side"), SIDES, SIDES[1])
        number = _parse_number(request.query_params.get("number"), range(100), 0)
        return await service.answer(request, lambda _: _respond(shop, cache, request, product_id, side, number))

    return router


def make_url(product: Product, side: int) -> str | None:
    """Return the path of a product's picture, which changes with the picture; None without one.

    Args:
        product: the product.
        side: one of SIDES.
    """
    if product.image_hash is None:
        return None
    return f"/pictures/{quote_path(product.product_id)}?side={side}&v={product.image_hash.hex()[:12]}"


def _respond(shop: Shop, cache: PictureCache, request: Request, product_id: str, side: int, number: int) -> Response:
    origin, picture = _find_origin(shop, product_id, number)
    etag = f'"{blake2b(f"{origin} {side}".encode(), digest_size=12).hexdigest()}"'
    headers = {"etag": etag, "cache-control": _DAY, "x-content-type-options": "nosniff"}
    if has_etag(request, etag):
        return Response(status_code=304, headers=headers)
    copy = cache.find((origin, side))
    if copy is None:
        content = _read_stored(shop, product_id, bytes.fromhex(origin)) if picture is None else picture
        try:
            copy = shrink_picture(content, side)
        except UnusableImageError as error:
            raise NotFoundError(f"the picture of {product_id!r} cannot be shown: {error.reason}") from None
        cache.keep((origin, side), copy)
    return Response(copy, media_type="image/jpeg", headers=headers)


def _find_origin(shop: Shop, product_id: str, number: int) -> tuple[str, Path | BucketObject | None]:
    """Return what identifies a picture and its version, and the file or object; None if the catalogue has its bytes."""
    product = shop.find_products([product_id]).get(product_id)
    if number and product is not None:
        further = shop.list_pictures(product_id)
        if number <= len(further):
            return further[number - 1], shop.settings.find_picture(further[number - 1])
    elif product is not None and product.image_hash is not None:
        return product.image_hash.hex(), None if product.image is None else shop.settings.find_picture(product.image)
    raise NotFoundError(f"product {product_id!r} has no such picture")


def _read_stored(shop: Shop, product_id: str, image_hash: bytes) -> bytes:
    """Return the picture with a hash that the catalogue has as bytes."""
    is_wanted = (pc.field(PRODUCT_ID) == product_id) & (pc.field("image_hash") == image_hash)
    where = is_wanted & pc.field("image_bytes").is_valid()
    rows = delta.read(shop.settings.table(schema.CATALOGUE_TABLE), ["image_bytes"], where=where)
    if not len(rows):
        raise NotFoundError(f"product {product_id!r} has no such picture")
    content: bytes = rows["image_bytes"][0].as_py()
    return content


def _parse_number(text: str | None, allowed: Sequence[int], default: int) -> int:
    """Return a number of a URL; the default for anything that is not allowed."""
    number = int(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else default
    return number if number in allowed else default
