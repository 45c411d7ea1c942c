"""The page of a product: pictures, tags, nearest neighbours, its group and the group's journal.

GET /product/ID   also /product?id=ID, for ids that a browser takes for folders
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from consumers.online.reader import OnlineReader
from consumers.pages import pictures
from consumers.pages.cards import Card, make_cards
from consumers.pages.groups import GroupChange, read_journal
from consumers.pages.shop import Product, Shop
from consumers.search.similar import find_similar, find_vector
from feature_repo import schema
from feature_repo.errors import NotFoundError, VitrineError
from feature_repo.index.filters import ProductFilter
from feature_repo.schema import PRODUCT_ID, TAG_SEPARATOR
from feature_repo.server.page_service import PageRequest, PageService
from feature_repo.web.pages import quote_path

NEIGHBOURS = 12
"""Products that are shown as the nearest."""
JOURNAL_LINES = 20
"""Changes of the group that are shown, the newest ones."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tag:
    """A predicted tag."""

    name: str
    value: str | None
    """None if the tagger is not sure enough."""
    probability: float | None
    """Calibrated, of the most probable value; None if it is not known."""
    distribution: tuple[tuple[str, float], ...] = ()
    """Values with their probabilities, in the order of the values; empty where the tagger gives none."""


def create_router(service: PageService, shop: Shop, reader: OnlineReader) -> APIRouter:
    """Return the routes.

    Args:
        service: answers the requests.
        shop: has products, neighbours and groups.
        reader: reads tags from the online store, as rankers get them.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/product")
    @router.get("/product/{product_id:path}")
    async def product(request: Request, product_id: str = "") -> Response:
        wanted = product_id or request.query_params.get("id", "")
        return await service.answer(request, lambda page_request: _show_product(shop, reader, page_request, wanted))

    return router


def _show_product(shop: Shop, reader: OnlineReader, page_request: PageRequest, product_id: str) -> Response:
    product = shop.find_products([product_id]).get(product_id)
    if product is None:
        raise NotFoundError(f"there is no product {product_id[:100]!r}")
    group_id, members, journal = _read_group(shop, product_id)
    further = [
        f"/pictures/{quote_path(product_id)}?side=320&number={n + 1}"
        for n in range(len(shop.list_pictures(product_id)))
    ]
    return page_request.render(
        "product.html",
        product=product,
        picture=pictures.make_url(product, 640),
        further=further,
        tags=read_tags(reader, product_id, shop.settings.age_scale.stages),
        neighbours=_find_neighbours(shop, product),
        group_id=group_id,
        members=members,
        journal=journal,
    )


def read_tags(reader: OnlineReader, product_id: str, ages: Sequence[str]) -> list[Tag]:
    """Return the predicted tags of a product; none if the online store does not have them or does not answer.

    Args:
        reader: of the online store.
        product_id: the product.
        ages: stages of child ages of the deployment.
    """
    try:
        batch = reader.fetch(schema.TAGS_TABLE, [product_id])
    except VitrineError as error:  # the rest of the page does without
        _log.warning("no tags for a page: %s", error)
        return []
    row: dict[str, Any] = {name: batch.arrow(name)[0].as_py() for name in batch.values}
    values = {"child_age": ages, "child_gender": schema.CHILD_GENDERS}
    tags = []
    for name in schema.TAGS:
        distribution = row.get(f"{name}_distribution") or ()
        is_known = name in values and len(distribution) == len(values[name])
        pairs = tuple(zip(values[name], distribution, strict=True)) if is_known else ()
        tags.append(Tag(name, row.get(name), _to_probability(row.get(f"{name}_probability")), pairs))
    for text in row.get("further_tags") or ():
        name, _, value = text.partition(TAG_SEPARATOR)
        tags.append(Tag(name, value, None))
    return [tag for tag in tags if tag.value is not None or tag.probability is not None]


def _find_neighbours(shop: Shop, product: Product) -> list[Card]:
    index = shop.find_index()
    if index is None:
        return []
    try:
        name, vector = find_vector(index, product.product_id)
    except NotFoundError:
        return []
    found = find_similar(index, name, vector, where=ProductFilter(), top_k=NEIGHBOURS, without=product.product_id)
    ids = found.products[PRODUCT_ID].to_pylist()
    cosines = found.products["cosine"].to_pylist()
    return make_cards(shop, ids, measures={one: f"{cosine:.2f}" for one, cosine in zip(ids, cosines, strict=True)})


def _read_group(shop: Shop, product_id: str) -> tuple[str | None, list[Card], list[GroupChange]]:
    """Return the group of a product, its other members, and its last changes."""
    groups = shop.find_groups()
    group_id = None if groups is None else groups.find_group(product_id)
    if groups is None or group_id is None:
        return None, [], []
    members = [one for one in groups.list_members(group_id) if one != product_id]
    return group_id, make_cards(shop, members), read_journal(shop.settings, group_id, JOURNAL_LINES)


def _to_probability(value: Any) -> float | None:
    """Return a probability; None for a missing one, which may be NaN."""
    return None if value is None or value != value else float(value)
