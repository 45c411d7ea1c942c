"""What each feature and each group of features means, in one sentence, for the report and for exports."""

import re
from collections.abc import Mapping

from consumers.ranking.plan import BASE
from feature_repo.features.affinity import TOP
from feature_repo.features.meanings import AFFINITY, NEIGHBOURS
from feature_repo.schema import HISTORY_LENGTH

GROUPS: Mapping[str, str] = {
    BASE: "the baseline: ids, price, context of the impression, earlier impressions and clicks; no images or titles",
    "tags": "child age, gender and category, as predicted from image and title, and how they fit the user's child",
    "affinity": "how similar the product's image and title are to what the user clicked before",
    "vectors": "the product's fused vector, projected to its main directions",
    "codes": "the product's semantic ID (a code for products that look and read alike), with its click rates",
    "neighbours": "click rate, price and age of the products most similar to this one",
    "missing": "what is unknown about the product's content, and the age of its vectors",
}
"""Group of features to what it holds."""

_KEYS = {
    "user": "of the user",
    "product": "of the product",
    "category": "of the category",
    "brand": "of the brand",
    "user_product": "of the user with this product",
    "user_category": "of the user in this category",
    "user_brand": "of the user with this brand",
}
_SAME = {
    "product": "this product",
    "category": "this category",
    "brand": "this brand",
    "semantic_id": "this semantic ID",
    "coarse_code": "this first code of the semantic ID",
}
_KINDS = {"image": "image", "text": "title"}
_HISTORY = {
    "history_cosine_max": "largest cosine",
    "history_cosine_mean": "mean cosine",
    f"history_cosine_top{TOP}": f"mean of the {TOP} largest cosines",
}

_FIXED = {
    **NEIGHBOURS,
    **{f"affinity_{name}": meaning for name, meaning in AFFINITY.items()},
    "user_id": "the user, as a category",
    "product_id": "the product, as a category",
    "category": "the product's category",
    "top_category": "the first level of the product's category",
    "brand": "the product's brand",
    "hour": "hour of the day, UTC",
    "weekday": "day of the week, 0 on Thursdays, UTC",
    "days_since_user_clicked": "days since the user's last click",
    "recent_clicks": "the user's clicks so far; a click of 14 days ago counts half",
    "price": "the product's price",
    "days_since_listed": "days since the product's joined version",
    "has_image": "whether the product has an image",
    "has_text": "whether the product has a title",
    "category_tag": "category predicted from image and title",
    "category_tag_probability": "probability of the predicted category",
    "age_match": "predicted probability of the age stage of the user's child, by the age in the log",
    "age_gap": "expected age stage of the product minus that of the user's child, by the age in the log",
    "gender_match": "predicted probability of the gender of the user's child, by the gender in the log",
    "semantic_id": "the product's semantic ID, as a category",
    "coarse_code": "the first code of the product's semantic ID, as a category",
    "vector_age_days": "days since the product's vectors were made",
    "category_predicted": "whether the shop gave no category and one was predicted",
}


def describe_feature(name: str, context: Mapping[str, str]) -> str:
    """Return what a feature means, in one sentence without a full stop; an empty text for an unknown name.

    Args:
        name: name of a feature of the baseline or of a group.
        context: the log's column of each feature `context_N`, as `map_context_columns` returns it.
    """
    if name in context:
        return f"column `{context[name]}` of the log"
    if name in _FIXED:
        return _FIXED[name]
    for pattern, describe in _PATTERNS:
        if match := re.fullmatch(pattern, name):
            return describe(*match.groups())
    return ""


def label_feature(name: str, context: Mapping[str, str]) -> str:
    """Return a feature's name as the report shows it: that of its column for a context column, else its own."""
    return context.get(name, name)


def _join(names: Mapping[str, str]) -> str:
    return "|".join(map(re.escape, names))


_PATTERNS = (
    (rf"({_join(_KEYS)})_shown", lambda key: f"impressions {_KEYS[key]} so far, as ln(1 + count)"),
    (rf"({_join(_KEYS)})_clicks", lambda key: f"clicks {_KEYS[key]} so far"),
    (rf"({_join(_KEYS)})_rate", lambda key: f"click rate {_KEYS[key]} so far"),
    (
        rf"same_({_join(_SAME)})_clicked",
        lambda key: f"how many of the user's last {HISTORY_LENGTH} clicks were on {_SAME[key]}",
    ),
    (r"(semantic_id|coarse_code)_rate", lambda code: f"click rate of {_SAME[code]} so far"),
    (r"user_(semantic_id|coarse_code)_rate", lambda code: f"click rate of the user with {_SAME[code]} so far"),
    (r"age_(.+)", lambda label: f"predicted probability that the product is for the age {label}"),
    (r"gender_(.+)", lambda label: f"predicted probability that the product is for the gender {label}"),
    (r"tag_(.+)", lambda tag: f"value of the tag {tag}, predicted from image and title"),
    (r"vector_(\d+)", lambda axis: f"coordinate {axis} of the fused vector, 0 the direction of the largest variance"),
    (r"(.+)_abstained", lambda tag: f"whether the tag {tag} was left empty, because no value was likely enough"),
    (
        rf"({_join(_KINDS)})_({_join(_HISTORY)})",
        lambda kind, statistic: (
            f"{_HISTORY[statistic]} of the product's {_KINDS[kind]} to the user's last {HISTORY_LENGTH} clicks"
        ),
    ),
    (
        r"(image|text)_interest_cosine",
        lambda kind: f"cosine of the product's {_KINDS[kind]} and the decayed mean of the user's clicks",
    ),
)
