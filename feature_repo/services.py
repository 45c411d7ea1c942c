"""What each consumer asks for, under one name."""

from feast import FeatureService

from feature_repo.views.product import product_catalogue, product_embedding, product_tags

ranking = FeatureService(
    name="ranking",
    features=[
        product_catalogue,
        product_embedding,
        product_tags,
    ],
    description="Everything a ranking model gets of a candidate.",
)

ranking_without_tags = FeatureService(
    name="ranking_without_tags",
    features=[
        product_catalogue,
        product_embedding,
    ],
    description="The same where nobody has labelled products: no tags are learnt, and there is no table of them.",
)
