"""What the shop knows of each offer beside the product itself: the seller's id, stock, units sold, a second image.

All of it comes from a random stream of its own, and no user reacts to it.
"""

from dataclasses import dataclass

import numpy as np

from producers.datasets.shop import parameters
from producers.datasets.shop.assortment import Bools, Ints, Products
from producers.datasets.shop.random_streams import make_generator


@dataclass(frozen=True)
class Offers:
    """The offers of n products. Each field has shape [n], one element for each product."""

    seller_ids: list[str]
    """Id of the seller, s000 for the first."""
    in_stock: Bools
    """Whether the product can be bought."""
    sales: Ints
    """Units sold; more of popular products."""
    has_further_image: Bools
    """Whether the product has a second image; false for products without an image."""


def make_offers(products: Products, seed: int) -> Offers:
    """Return the offers of products.

    Args:
        products: the products.
        seed: the shop's seed; the same arguments give the same offers.
    """
    rng = make_generator(seed, "offers")
    n = len(products.design)
    return Offers(
        seller_ids=[f"s{number:03d}" for number in products.seller.tolist()],
        in_stock=rng.random(n) >= parameters.OUT_OF_STOCK,
        sales=rng.poisson(parameters.MEAN_SALES * np.exp(products.popularity)),
        has_further_image=(rng.random(n) < parameters.FURTHER_IMAGE) & (products.image_quality != "missing"),
    )
