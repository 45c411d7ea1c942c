"""Feature services: the features of each consumer, under one name."""

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
    description="All features of a ranking model for a candidate and its user.",
)

ranking_without_history = FeatureService(
    name="ranking_without_history",
    features=[
        product_catalogue,
        product_embedding,
        product_tags,
        product_codes,
    ],
    description="`ranking` for shops without a log of impressions: no interests and no neighbour statistics.",
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
    description="`ranking` for shops without labelled products: no tags are learnt.",
)

ranking_without_tags = FeatureService(
    name="ranking_without_tags",
    features=[
        product_catalogue,
        product_embedding,
    ],
    description="Catalogue and embeddings only: no tags, codes, neighbours or interests.",
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
    description="`ranking` and the affinity features. Feast needs the history in the request for the latter.",
)

affinity_history = FeatureService(
    name=HISTORY_SERVICE,
    features=[
        product_embedding[["fused_vector", "encoder_version"]],
        product_codes[["codes"]],
    ],
    description="What the affinity features need about the products that a user clicked last.",
)
