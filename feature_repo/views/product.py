"""Feature views of a product."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Array, Bool, Float32, Float64, Int32, String

from feature_repo import schema
from feature_repo.entities import OWNER, product
from feature_repo.features.meanings import NEIGHBOURS
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS
from feature_repo.sources import delta_source
from feature_repo.views.storage import ADDED, AGES, FEW, HALF
from feature_repo.views.view_tags import ENCODER_VERSION, make_view_tags

WHILE_ON_SALE = timedelta(days=36_500)
"""TTL: features are valid until the product changes. Feast reads a TTL of 0 as 52 weeks at the first materialization,
so a long one is given."""

product_catalogue = FeatureView(
    name=schema.CATALOGUE_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(name="category", dtype=String, tags=FEW, description="category of the shop, levels joined by >"),
        Field(name="brand", dtype=String, description="brand, as the shop states it"),
        Field(name="price", dtype=Float64, description="price in the shop's currency"),
    ],
    source=delta_source(schema.CATALOGUE_TABLE),
    description="What the shop states about a product.",
    tags=make_view_tags(schema.CATALOGUE_TABLE),
    owner=OWNER,
)

product_embedding = FeatureView(
    name=schema.EMBEDDING_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(
            name="image_vector",
            dtype=Array(Float32),
            tags=HALF,
            description="unit vector of the image; missing without a usable image",
        ),
        Field(
            name="text_vector",
            dtype=Array(Float32),
            tags=HALF,
            description="unit vector of the title; missing without a title",
        ),
        Field(  # float32: online affinity must equal offline
            name="fused_vector",
            dtype=Array(Float32),
            description="unit vector of image and title, 1:1, to find the same product",
        ),
        Field(
            name="similar_vector",
            dtype=Array(Float32),
            tags=HALF,
            description="unit vector of image and title, 7:3, to find products like it",
        ),
        Field(name="has_image", dtype=Bool, description="whether the product has a usable image"),
        Field(name="has_text", dtype=Bool, description="whether the product has a title"),
        Field(name="encoder_version", dtype=String, tags=FEW, description=ENCODER_VERSION),
    ],
    source=delta_source(schema.EMBEDDING_TABLE),
    description="Image and text of a product as unit vectors of one encoder version.",
    tags=make_view_tags(schema.EMBEDDING_TABLE, comparable_within="encoder_version"),
    owner=OWNER,
)

_TAG_MEANINGS = {
    "child_age": "age stage of the child that the product is for",
    "child_gender": "gender of the child that the product is for",
    "category": "category, predicted from image and title",
}

product_tags = FeatureView(
    name=schema.TAGS_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        *(
            Field(name=tag, dtype=String, tags=FEW, description=f"{meaning}; missing if none is likely enough")
            for tag, meaning in _TAG_MEANINGS.items()
        ),
        *(
            Field(
                name=f"{tag}_probability",
                dtype=Float32,
                description=f"calibrated probability of the most probable value of {tag}",
            )
            for tag in _TAG_MEANINGS
        ),
        Field(
            name="child_age_distribution",
            dtype=Array(Float32),
            vector_length=len(CHILD_AGES),
            tags=AGES,
            description="calibrated probability of each age stage, the youngest first",
        ),
        Field(
            name="child_gender_distribution",
            dtype=Array(Float32),
            vector_length=len(CHILD_GENDERS),
            description=f"calibrated probability of each gender: {', '.join(CHILD_GENDERS)}",
        ),
        Field(
            name="further_tags",
            dtype=Array(String),
            tags=ADDED,
            description="TAG=VALUE for each further tag that is likely enough",
        ),
        Field(name="tagger_version", dtype=String, tags=FEW, description="version of the tagger"),
        Field(name="encoder_version", dtype=String, tags=FEW, description=ENCODER_VERSION),
    ],
    source=delta_source(schema.TAGS_TABLE),
    description="Tags predicted from the vectors, with calibrated probabilities.",
    tags=make_view_tags(schema.TAGS_TABLE, comparable_within="tagger_version"),
    owner=OWNER,
)

product_codes = FeatureView(
    name=schema.CODES_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(name="codes", dtype=Array(Int32), description="one code for each level, coarse to fine"),
        Field(name="semantic_id", dtype=String, description="the codes joined by -, as one category"),
        Field(name="codebook_version", dtype=String, tags=FEW, description="version of the codebook"),
        Field(name="encoder_version", dtype=String, tags=FEW, description=ENCODER_VERSION),
    ],
    source=delta_source(schema.CODES_TABLE),
    description="The semantic ID of a product: residual k-means codes of its fused vector, coarse to fine.",
    tags=make_view_tags(schema.CODES_TABLE, comparable_within="codebook_version"),
    owner=OWNER,
)

product_neighbours = FeatureView(
    name=schema.NEIGHBOURS_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        *(
            Field(name=name, dtype=Int32 if name == "neighbours" else Float32, description=meaning)
            for name, meaning in NEIGHBOURS.items()
        ),
        Field(name="encoder_version", dtype=String, tags=FEW, description=ENCODER_VERSION),
    ],
    source=delta_source(schema.NEIGHBOURS_TABLE),
    description="What the most similar products earned: a prior for a product without impressions.",
    tags=make_view_tags(schema.NEIGHBOURS_TABLE, comparable_within="encoder_version"),
    owner=OWNER,
)

product_group = FeatureView(
    name=schema.GROUP_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(name="group_id", dtype=String, description="id that all offers of one product share"),
        Field(name="verifier_version", dtype=String, tags=FEW, description="version of the model that compares pairs"),
        Field(name="encoder_version", dtype=String, tags=FEW, description=ENCODER_VERSION),
    ],
    source=delta_source(schema.GROUP_TABLE),
    description="Which offers are the same product: those of one group.",
    tags=make_view_tags(schema.GROUP_TABLE),
    owner=OWNER,
)

product_caption = FeatureView(
    name=schema.CAPTION_TABLE,
    entities=[product],
    ttl=WHILE_ON_SALE,
    schema=[
        Field(name="caption", dtype=String, description="the selling line, null if nothing is sure"),
        Field(
            name="stated",
            dtype=Array(String),
            tags=ADDED,
            description="tag=value of each attribute that the caption states, null in rows of version 0.2 and earlier",
        ),
        Field(name="captioner_version", dtype=String, tags=FEW, description="version of the captioner"),
        Field(
            name="encoder_version",
            dtype=String,
            tags=FEW | ADDED,
            description="encoder whose language head wrote the caption, null in rows of version 0.2 and earlier",
        ),
    ],
    source=delta_source(schema.CAPTION_TABLE),
    description="A selling line as a draft for merchants, which states only what the tags are sure of.",
    tags=make_view_tags(schema.CAPTION_TABLE),
    owner=OWNER,
)
