"""What each consumer asks for, under one name."""

from feast import FeatureService

from feature_repo.features.affinity import HISTORY_SERVICE
from feature_repo.views.affinity import user_product_affinity
from feature_repo.views.product import (
    product_catalogue,
    product_codes,
    product_embedding,
    product_neighbours,
    product_tags,
)
from feature_repo.views.user import user_interest

ranking = FeatureService(
    name="ranking",
    features=[
        product_catalogue,
        product_embedding,
        product_tags,
        product_codes,
        product_neighbours,
        user_interest,
    ],
    description="Everything a ranking model gets of a candidate and its user.",
)

ranking_without_history = FeatureService(
    name="ranking_without_history",
    features=[
        product_catalogue,
        product_embedding,
        product_tags,
        product_codes,
    ],
    description="The same without a log of impressions: there are neither interests nor neighbours' statistics.",
)

ranking_without_labels = FeatureService(
    name="ranking_without_labels",
    features=[
        product_catalogue,
        product_embedding,
        product_codes,
        product_neighbours,
        user_interest,
    ],
    description="The same where nobody has labelled products: no tags are learnt, and there is no table of them.",
)

ranking_without_tags = FeatureService(
    name="ranking_without_tags",
    features=[
        product_catalogue,
        product_embedding,
    ],
    description="What `produce embeddings` alone gives: neither tags nor codes, neighbours or interests.",
)

ranking_with_affinity = FeatureService(
    name="ranking_with_affinity",
    features=[
        product_catalogue,
        product_embedding,
        product_tags,
        product_codes,
        product_neighbours,
        user_interest,
        user_product_affinity,
    ],
    description="`ranking` and how close candidate and user are; Feast wants the request's history for the last.",
)

affinity_history = FeatureService(
    name=HISTORY_SERVICE,
    features=[
        product_embedding[["fused_vector", "encoder_version"]],
        product_codes[["codes"]],
    ],
    description="What the affinity features need of the products that a user clicked last.",
)
