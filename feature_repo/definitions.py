"""All Feast objects of the repository. `feast apply` reads this file only (see .feastignore)."""

from feature_repo.entities import product, user
from feature_repo.services import (
    affinity_history,
    captions,
    ranking,
    ranking_with_affinity,
    ranking_without_history,
    ranking_without_labels,
    ranking_without_tags,
)
from feature_repo.views.affinity import user_product_affinity
from feature_repo.views.product import (
    product_caption,
    product_catalogue,
    product_codes,
    product_embedding,
    product_group,
    product_neighbours,
    product_tags,
)
from feature_repo.views.user import user_interest

__all__ = [
    "affinity_history",
    "captions",
    "product",
    "product_caption",
    "product_catalogue",
    "product_codes",
    "product_embedding",
    "product_group",
    "product_neighbours",
    "product_tags",
    "ranking",
    "ranking_with_affinity",
    "ranking_without_history",
    "ranking_without_labels",
    "ranking_without_tags",
    "user",
    "user_interest",
    "user_product_affinity",
]
