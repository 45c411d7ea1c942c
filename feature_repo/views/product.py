"""Feature views of a product."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Array, Bool, Float32, Float64, Int32, String

from feature_repo import schema
from feature_repo.entities import product
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, TAGS
from feature_repo.sources import delta_source
from feature_repo.views.storage import ADDED, AGES, FEW, HALF

WHILE_ON_SALE = timedelta(days=36_500)
"""TTL: features are valid until the product changes. Feast reads a TTL of 0 as 52 weeks at the first materialization,
so a long one is given."""

product_catalogue = FeatureView(
    name=schema.CATALOGUE_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(name="category", dtype=String, tags=FEW),
        Field(name="brand", dtype=String),
        Field(name="price", dtype=Float64),
    ],
    source=delta_source(schema.CATALOGUE_TABLE),
    description="What the shop states about a product.",
)

product_embedding = FeatureView(
    name=schema.EMBEDDING_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(name="image_vector", dtype=Array(Float32), tags=HALF),
        Field(name="text_vector", dtype=Array(Float32), tags=HALF),
        Field(name="fused_vector", dtype=Array(Float32)),  # float32: online affinity must equal offline
        Field(name="similar_vector", dtype=Array(Float32), tags=HALF),
        Field(name="has_image", dtype=Bool),
        Field(name="has_text", dtype=Bool),
        Field(name="encoder_version", dtype=String, tags=FEW),
    ],
    source=delta_source(schema.EMBEDDING_TABLE),
    description="Image and text of a product as unit vectors of one encoder version.",
)

product_tags = FeatureView(
    name=schema.TAGS_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        *(Field(name=tag, dtype=String, tags=FEW) for tag in TAGS),
        *(Field(name=f"{tag}_probability", dtype=Float32) for tag in TAGS),
        Field(name="child_age_distribution", dtype=Array(Float32), vector_length=len(CHILD_AGES), tags=AGES),
        Field(name="child_gender_distribution", dtype=Array(Float32), vector_length=len(CHILD_GENDERS)),
        Field(name="further_tags", dtype=Array(String), tags=ADDED),
        Field(name="tagger_version", dtype=String, tags=FEW),
        Field(name="encoder_version", dtype=String, tags=FEW),
    ],
    source=delta_source(schema.TAGS_TABLE),
    description="Tags predicted from the vectors, with calibrated probabilities.",
)

product_codes = FeatureView(
    name=schema.CODES_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(name="codes", dtype=Array(Int32)),
        Field(name="semantic_id", dtype=String),
        Field(name="codebook_version", dtype=String, tags=FEW),
        Field(name="encoder_version", dtype=String, tags=FEW),
    ],
    source=delta_source(schema.CODES_TABLE),
    description="The semantic ID of a product: residual k-means codes of its fused vector, coarse to fine.",
)

product_neighbours = FeatureView(
    name=schema.NEIGHBOURS_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(name="neighbour_click_rate", dtype=Float32),
        Field(name="neighbour_impressions", dtype=Float32),
        Field(name="neighbour_price", dtype=Float32),
        Field(name="neighbour_age", dtype=Float32),
        Field(name="neighbour_similarity", dtype=Float32),
        Field(name="neighbours", dtype=Int32),
        Field(name="encoder_version", dtype=String, tags=FEW),
    ],
    source=delta_source(schema.NEIGHBOURS_TABLE),
    description="What the most similar products earned: a prior for a product without impressions.",
)

product_group = FeatureView(
    name=schema.GROUP_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(name="group_id", dtype=String),
        Field(name="verifier_version", dtype=String, tags=FEW),
        Field(name="encoder_version", dtype=String, tags=FEW),
    ],
    source=delta_source(schema.GROUP_TABLE),
    description="Which offers are the same product: those of one group.",
)

product_caption = FeatureView(
    name=schema.CAPTION_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(name="caption", dtype=String),
        Field(name="captioner_version", dtype=String, tags=FEW),
    ],
    source=delta_source(schema.CAPTION_TABLE),
    description="A selling line as a draft for merchants, generated from the image.",
)
