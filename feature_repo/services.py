"""Feature services: the features of each consumer, under one name.

Views share the names `encoder_version` and `category`, so Feast's calls on a service of several need
`full_feature_names=True`, which says `product_embedding__encoder_version`. The descriptions say so; a test holds it.
"""

from feast import FeatureService

from feature_repo.entities import OWNER
from feature_repo.features.affinity import HISTORY_SERVICE
from feature_repo.views.affinity import user_product_affinity
from feature_repo.views.product import (
    product_caption,
    product_catalogue,
    product_codes,
    product_embedding,
    product_neighbours,
    product_tags,
)
from feature_repo.views.user import user_interest

FULL_NAMES = "Its views share feature names such as encoder_version: fetch it with full_feature_names=True."

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
    owner=OWNER,
    description=f"All features of a ranking model for a candidate and its user. {FULL_NAMES}",
)

ranking_without_history = FeatureService(
    name="ranking_without_history",
    features=[
        product_catalogue,
        product_embedding,
        product_tags,
        product_codes,
    ],
    owner=OWNER,
    description="`ranking` for shops without a log of impressions: no interests and no neighbour statistics. "
    f"{FULL_NAMES}",
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
    owner=OWNER,
    description=f"`ranking` for shops without labelled products: no tags are learned. {FULL_NAMES}",
)

ranking_without_tags = FeatureService(
    name="ranking_without_tags",
    features=[
        product_catalogue,
        product_embedding,
    ],
    owner=OWNER,
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
    owner=OWNER,
    description="`ranking` and the affinity features. Feast needs the history in the request for the latter. "
    f"{FULL_NAMES}",
)

affinity_history = FeatureService(
    name=HISTORY_SERVICE,
    features=[
        product_embedding[["fused_vector", "encoder_version"]],
        product_codes[["codes"]],
    ],
    owner=OWNER,
    description="What the affinity features need about the products that a user clicked last.",
)

captions = FeatureService(
    name="captions",
    features=[product_caption],
    owner=OWNER,
    description="A selling line for each product, the attributes that it states, and the encoder that it came from.",
)
