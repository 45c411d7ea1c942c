"""What each computed feature means, in one sentence without a full stop, for Feast's registry and for reports."""

from collections.abc import Mapping

from feature_repo.features.affinity import TIERS, TOP
from feature_repo.schema import HISTORY_LENGTH

_TO_HISTORY = f"of the product's fused vector to the user's last {HISTORY_LENGTH} clicks"
_LAST_CLICKS = f"how many of the user's last {HISTORY_LENGTH} clicks"

AFFINITY: Mapping[str, str] = {
    "interest_cosine": "cosine of the product's fused vector and the decayed mean of the user's clicks",
    "history_cosine_max": f"largest cosine {_TO_HISTORY}",
    "history_cosine_mean": f"mean cosine {_TO_HISTORY}",
    "history_cosine_top5": f"mean of the {TOP} largest cosines {_TO_HISTORY}",
    **{
        f"tier_{middle:.1f}": f"{_LAST_CLICKS} have a cosine of about {middle:.1f} to the product, as ln(1 + count)"
        for middle in TIERS
    },
    "age_match": "cosine of the product's age stages and those that the user clicks",
    "gender_match": "cosine of the product's genders and those that the user clicks",
    "age_gap": "expected age stage of the product minus that of the user's clicks, at the child's present age",
    "same_product": f"{_LAST_CLICKS} were on this product",
    "same_code": f"{_LAST_CLICKS} were on this semantic ID",
    "same_coarse_code": f"{_LAST_CLICKS} were on this first code of the semantic ID",
}
"""Feature of `user_product_affinity` to its meaning."""

NEIGHBOURS: Mapping[str, str] = {
    "neighbour_click_rate": "click rate of the most similar products",
    "neighbour_impressions": "impressions of the most similar products, as ln(1 + count)",
    "neighbour_price": "mean price of the most similar products, as ln(1 + price)",
    "neighbour_age": "mean expected age stage of the most similar products",
    "neighbour_similarity": "mean cosine to the most similar products",
    "neighbours": "number of similar products found",
}
"""Feature of `product_neighbours` to its meaning."""
