"""A product as a card of a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consumers.pages import pictures
from consumers.pages.shop import Product, Shop
from feature_repo.web.pages import quote_path

CARD_SIDE = 320
"""Longer side of the picture on a card, in pixels."""


@dataclass(frozen=True)
class Card:
    """A product with what a page says about it."""

    product: Product
    url: str
    picture: str | None
    """Path of the picture; None without one."""
    reasons: tuple[str, ...] = ()
    """Why it is on the page."""
    measure: str = ""
    """How well it fits, such as `87% sure`."""
    duplicates: tuple[str, ...] = ()
    """Ids of the products that are collapsed into this one."""


def make_cards(
    shop: Shop,
    product_ids: Sequence[str],
    *,
    reasons: Mapping[str, Sequence[str]] | None = None,
    measures: Mapping[str, str] | None = None,
    duplicates: Mapping[str, Sequence[str]] | None = None,
) -> list[Card]:
    """Return the cards of some products, in their order; products that are not known any more are left out.

    Args:
        shop: has the products.
        product_ids: each once.
        reasons: by product id.
        measures: by product id.
        duplicates: by product id.
    """
    found = shop.find_products(product_ids)
    return [
        Card(
            found[one],
            make_url(one),
            pictures.make_url(found[one], CARD_SIDE),
            tuple((reasons or {}).get(one, ())),
            (measures or {}).get(one, ""),
            tuple((duplicates or {}).get(one, ())),
        )
        for one in product_ids
        if one in found
    ]


def make_url(product_id: str) -> str:
    """Return the path of a product's page, whatever characters the id has."""
    if product_id in (".", ".."):  # browsers take them for folders, also when they are quoted
        return f"/product?id={product_id}"
    return f"/product/{quote_path(product_id)}"
