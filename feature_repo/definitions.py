"""Gathers every object for Feast: `feast apply` reads this file and no other (see .feastignore)."""

from feature_repo.entities import product, user
from feature_repo.services import ranking, ranking_without_tags
from feature_repo.views.product import product_catalogue, product_embedding, product_tags

__all__ = [
    "product",
    "product_catalogue",
    "product_embedding",
    "product_tags",
    "ranking",
    "ranking_without_tags",
    "user",
]
