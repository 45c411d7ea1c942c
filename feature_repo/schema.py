"""Column names and Arrow schemas: what passes between producers, the store and consumers.

Timestamps are UTC microseconds. `event_timestamp` says when the product was so, `created_timestamp` when the row
was computed. Vectors are float32 lists of unit length in the space that `encoder_version` names; vectors of two
encoder versions are never compared.
"""

import pyarrow as pa

PRODUCT_ID = "product_id"
USER_ID = "user_id"
IMPRESSION_ID = "impression_id"
EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"
CLICKED = "clicked"

CATALOGUE_TABLE = "product_catalogue"
ACTIVE_TABLE = "product_active"
EMBEDDING_TABLE = "product_embedding"
TAGS_TABLE = "product_tags"
CODES_TABLE = "product_codes"
NEIGHBOURS_TABLE = "product_neighbours"
CAPTION_TABLE = "product_caption"
INTEREST_TABLE = "user_interest"
TAG_PREDICTIONS_TABLE = "tag_predictions"
FIRST_FEATURE_TABLE = "product_first_feature"
QUARANTINE_TABLE = "quarantine"

TIMESTAMP = pa.timestamp("us", tz="UTC")
VECTOR = pa.list_(pa.float32())

CHILD_AGES = ("0-6m", "6-12m", "1-3y", "3-6y", "6-14y")
"""Child age stages, youngest first."""
CHILD_AGE_MONTHS = (0, 6, 12, 36, 72, 168)
"""Bounds of the stages in months: stage i is [CHILD_AGE_MONTHS[i], CHILD_AGE_MONTHS[i + 1])."""
CHILD_GENDERS = ("boy", "girl", "unisex")
CATEGORY_SEPARATOR = ">"

PRODUCTS = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("title", pa.string()),
        ("image", pa.string()),  # path, relative to the file that holds the table; or bytes (pa.binary())
        ("category", pa.string()),  # levels joined by CATEGORY_SEPARATOR
        ("brand", pa.string()),
        ("price", pa.float64()),
        ("updated_at", TIMESTAMP),
    ]
)
"""The products a shop hands in: one row per active product."""

IMPRESSIONS = pa.schema(
    [
        (IMPRESSION_ID, pa.string()),
        (USER_ID, pa.string()),
        (PRODUCT_ID, pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CLICKED, pa.int8()),
    ]
)
"""What was shown to whom, and whether it was clicked. Further columns are context: known when it was shown, and
given to every ranker alike. Two are understood: `child_age_months` (float, of the user's child at that time, null if
unknown) and `child_gender` (`CHILD_GENDERS`, null if unknown)."""

LABELS = pa.schema([(PRODUCT_ID, pa.string()), ("tag", pa.string()), ("value", pa.string())])
"""Tags that people gave: `tag` is child_age, child_gender or category."""

TAGS = ("child_age", "child_gender", "category")

CATALOGUE = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("title", pa.string()),
        ("image", pa.string()),  # absolute path or URI, null if there is none
        ("image_bytes", pa.binary()),  # the picture itself where the shop hands in bytes
        ("category", pa.string()),
        ("brand", pa.string()),
        ("price", pa.float64()),
        ("image_hash", pa.binary()),  # BLAKE2b of the picture's bytes, 16 bytes; null where they cannot be read
        ("image_stat", pa.binary()),  # digest of a picture's path, size and time of change: as long as it is the same,
        ("fingerprint", pa.binary()),  # so is the hash; and the digest of all that makes a version
        (EVENT_TIMESTAMP, TIMESTAMP),  # the product's updated_at
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_catalogue`: every version of every product that passed the checks."""

PRODUCT_ACTIVE = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("active", pa.bool_()),  # false: it was not among the day's products any more; true: it is again
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_active`: products that went and came back. One of the catalogue without a row here is active."""

PRODUCT_EMBEDDING = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("image_vector", VECTOR),  # null where there is no usable image
        ("text_vector", VECTOR),  # null where there is no title
        ("fused_vector", VECTOR),  # image and text 1:1, for "the same product"
        ("similar_vector", VECTOR),  # image and text 7:3, for "one like it"
        ("has_image", pa.bool_()),
        ("has_text", pa.bool_()),
        ("image_hash", pa.binary()),  # BLAKE2b, 16 bytes, of the picture as the catalogue knows it, and of the title:
        ("title_hash", pa.binary()),  # which contents the row answers; null where there is none, or none can be read
        ("encoder_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_embedding`. A product with neither modality has no row."""

PRODUCT_TAGS = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        *(
            field
            for tag in TAGS
            for field in (
                (tag, pa.string()),  # null where the tagger abstains
                (f"{tag}_probability", pa.float32()),  # calibrated, of the most probable label
            )
        ),
        ("child_age_distribution", VECTOR),  # calibrated, in the order of CHILD_AGES
        ("child_gender_distribution", VECTOR),  # calibrated, in the order of CHILD_GENDERS
        ("tagger_version", pa.string()),
        ("encoder_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_tags`."""

PRODUCT_CODES = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("codes", pa.list_(pa.int32())),  # one a level, coarse to fine
        ("semantic_id", pa.string()),  # the codes joined by "-": one category for a ranker
        ("codebook_version", pa.string()),
        ("encoder_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_codes`: residual k-means of the fused vector."""

PRODUCT_NEIGHBOURS = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("neighbour_click_rate", pa.float32()),  # of the nearest products with a history by then, smoothed
        ("neighbour_impressions", pa.float32()),  # ln(1 + how often those were shown)
        ("neighbour_price", pa.float32()),  # mean of ln(1 + price)
        ("neighbour_age", pa.float32()),  # expected child age stage, index into CHILD_AGES
        ("neighbour_similarity", pa.float32()),  # mean cosine: how much to believe the rest
        ("neighbours", pa.int32()),  # how many had a history
        ("encoder_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_neighbours`: what the nearest products earned strictly before the event timestamp, never its own."""

HISTORY_LENGTH = 50
"""How many of a user's last clicks are kept, newest first."""

USER_INTEREST = pa.schema(
    [
        (USER_ID, pa.string()),
        ("interest_vector", VECTOR),  # recency-weighted mean of the clicked fused vectors: short where they differ
        ("interest_weight", pa.float32()),  # of that mean: what the clicks so far weigh, as of the last of them
        ("child_age_mix", VECTOR),  # recency-weighted mean distribution at the last click, in the order of CHILD_AGES
        ("child_age_weight", pa.float32()),
        ("child_gender_mix", VECTOR),  # the same, in the order of CHILD_GENDERS
        ("child_gender_weight", pa.float32()),
        ("recent_products", pa.list_(pa.string())),  # the last HISTORY_LENGTH clicks, newest first
        ("recent_times", pa.list_(pa.int64())),  # microseconds since 1970 UTC of each
        ("clicks", pa.int64()),  # so far
        ("encoder_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),  # one microsecond after the click that made this version
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `user_interest`: one version a click, valid from the microsecond after it, so that no as-of join, whose bound
is inclusive, shows an impression its own click. Clicks of one microsecond are one version. A row is all that the next
one is made from (features/interest.py); a vector or mix of which no click had one is null."""

PRODUCT_CAPTION = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("caption", pa.string()),
        ("captioner_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_caption`: a selling line to start from, written from the picture."""

TAG_VARIANTS = ("image and text", "vectors alone", "bag of words", "text tower", "image tower")
"""What a tag was predicted from: the tagger itself first, then what it is measured against."""
TAG_SPLITS = ("calibration", "test")
"""Labelled products that no classifier was trained on; the test is used for nothing but the report."""

TAG_PREDICTIONS = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("group", pa.string()),  # products of one group are the same design and stand in one split
        ("tag", pa.string()),  # of TAGS
        ("variant", pa.string()),  # of TAG_VARIANTS
        ("split", pa.string()),  # of TAG_SPLITS
        ("truth", pa.string()),  # what a person said
        ("labels", pa.list_(pa.string())),  # the values that the classifier knows
        ("probabilities", VECTOR),  # calibrated, in the order of `labels`
        ("tagger_version", pa.string()),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `tag_predictions`: what the taggers said of labelled products that they had not seen."""

PRODUCT_FIRST_FEATURE = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("seconds", pa.float64()),  # from the message's arrival until the product's features were online
        (EVENT_TIMESTAMP, TIMESTAMP),  # the product's updated_at
        (CREATED_TIMESTAMP, TIMESTAMP),  # when the message arrived
    ]
)
"""Table `product_first_feature`: time to first feature of every product version that `produce stream` took in."""

QUARANTINE = pa.schema(
    [
        ("step", pa.string()),  # the command that refused it: "catalogue", "embeddings", ...
        ("row_id", pa.string()),  # product_id or impression_id where there is one, else "row 17"
        ("column", pa.string()),
        ("reason", pa.string()),
        ("value", pa.string()),  # as it came, at most 200 characters
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `quarantine`: bad input, with its reason."""
