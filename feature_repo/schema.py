"""Table names, column names and Arrow schemas: the contract between producers, the store and consumers.

Timestamps are UTC microseconds. `event_timestamp` is the time from which a row describes its entity,
`created_timestamp` the time at which the row was computed. Vectors are float32 lists of unit length in the space that
`encoder_version` names; vectors of two encoder versions are never compared.
"""

import pyarrow as pa

from feature_repo.age_scale import CHILD_AGE_MONTHS as CHILD_AGE_MONTHS
from feature_repo.age_scale import CHILD_AGES as CHILD_AGES

PRODUCT_ID = "product_id"
USER_ID = "user_id"
IMPRESSION_ID = "impression_id"
SELLER_ID = "seller_id"
EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"
CLICKED = "clicked"
INPUT_DIGEST = "input_digest"
"""Column of derived tables: 64 bits that depend on everything that the row was made from, model versions excepted. Null
in rows that version 0.2 or earlier wrote, and where a stream cannot know it."""

# Names of the Delta tables. A feature view has the name of its table.
CATALOGUE_TABLE = "product_catalogue"
ACTIVE_TABLE = "product_active"
EMBEDDING_TABLE = "product_embedding"
TAGS_TABLE = "product_tags"
CODES_TABLE = "product_codes"
NEIGHBOURS_TABLE = "product_neighbours"
GROUP_TABLE = "product_group"
GROUP_JOURNAL_TABLE = "product_group_journal"
PAIR_TABLE = "product_pair"
PAIR_LABEL_TABLE = "pair_label"
PICTURE_TABLE = "product_picture"
CAPTION_TABLE = "product_caption"
INTEREST_TABLE = "user_interest"
TAG_PREDICTIONS_TABLE = "tag_predictions"
ENCODER_TRAINING_TABLE = "encoder_training"
ENCODER_LICENCE_TABLE = "encoder_licence"
FIRST_FEATURE_TABLE = "product_first_feature"
QUARANTINE_TABLE = "quarantine"
UPGRADES_TABLE = "encoder_upgrades"
ENCODER_VERSION = "encoder_version"
"""Name of the column, and of the feature, with the version of the encoder that a row is derived from."""
ENCODER_TABLES = (EMBEDDING_TABLE, TAGS_TABLE, CODES_TABLE, NEIGHBOURS_TABLE, INTEREST_TABLE)
"""Tables whose rows are derived from an encoder's vectors. They hold rows of every encoder version; a training set, a
request and a materialization use those of one version (offline/production.py). Not `product_group`: its ids stay over
an upgrade."""

TIMESTAMP = pa.timestamp("us", tz="UTC")
VECTOR = pa.list_(pa.float32())

CHILD_GENDERS = ("boy", "girl", "unisex")
CATEGORY_SEPARATOR = ">"

PRODUCTS = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("title", pa.string()),
        ("image", pa.string()),  # path, relative to the table's file; or bytes (pa.binary())
        ("category", pa.string()),  # levels joined by CATEGORY_SEPARATOR
        ("brand", pa.string()),
        ("price", pa.float64()),
        ("updated_at", TIMESTAMP),
    ]
)
"""Input: the products of a shop, one row per active product."""

OPTIONAL_PRODUCTS = pa.schema(
    [
        (SELLER_ID, pa.string()),
        ("in_stock", pa.bool_()),
        ("sales", pa.int64()),  # units sold, in a period that the shop chooses
        ("images", pa.list_(pa.string())),  # further images, paths as in `image`
    ]
)
"""Input: columns of the products that may be missing. They are then null in the catalogue."""

IMPRESSIONS = pa.schema(
    [
        (IMPRESSION_ID, pa.string()),
        (USER_ID, pa.string()),
        (PRODUCT_ID, pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CLICKED, pa.int8()),
    ]
)
"""Input: which product was shown to which user, and whether it was clicked. Further columns are context that was known
at that time; every ranker gets all of it. Two have a meaning: `child_age_months` (float, age of the user's child, null
if unknown) and `child_gender` (one of CHILD_GENDERS, null if unknown)."""

LABELS = pa.schema([(PRODUCT_ID, pa.string()), ("tag", pa.string()), ("value", pa.string())])
"""Input: tags assigned by people. `tag` is one of TAGS, or any other text, whose values are then any texts."""

TAGS = ("child_age", "child_gender", "category")
"""Tags with columns of their own. All others share the column `further_tags`."""
TAG_SEPARATOR = "="

CATALOGUE = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("title", pa.string()),
        ("image", pa.string()),  # absolute path or URI, null if there is none
        ("image_bytes", pa.binary()),  # the image, if the shop supplies bytes
        ("category", pa.string()),
        ("brand", pa.string()),
        ("price", pa.float64()),
        ("image_hash", pa.binary()),  # BLAKE2b of the image's bytes, 16 bytes; null if they cannot be read
        (
            "image_stat",
            pa.binary(),
        ),  # hash of the image file's path, size and time of change; if equal, so is image_hash
        ("fingerprint", pa.binary()),  # hash of all columns that make a version
        (EVENT_TIMESTAMP, TIMESTAMP),  # the product's updated_at
        (CREATED_TIMESTAMP, TIMESTAMP),
        *OPTIONAL_PRODUCTS,  # `images` are absolute paths; versions before 0.3 have none of these columns
    ]
)
"""Table `product_catalogue`: every version of every product that passed validation."""

PRODUCT_ACTIVE = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("active", pa.bool_()),  # false: no longer among the shop's products; true: again
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_active`: products that left and came back. A product of the catalogue without a row here is active."""

PRODUCT_EMBEDDING = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("image_vector", VECTOR),  # null if there is no usable image
        ("text_vector", VECTOR),  # null if there is no title
        ("fused_vector", VECTOR),  # image and text 1:1, for "the same product"
        ("similar_vector", VECTOR),  # image and text 7:3, for "one like it"
        ("has_image", pa.bool_()),
        ("has_text", pa.bool_()),
        ("image_hash", pa.binary()),  # BLAKE2b, 16 bytes, of the image that was encoded; null if there was none
        ("title_hash", pa.binary()),  # likewise of the title
        ("encoder_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_embedding`. A product without image and title has no row."""

PRODUCT_TAGS = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        *(
            field
            for tag in TAGS
            for field in (
                (tag, pa.string()),  # null if the tagger abstains
                (f"{tag}_probability", pa.float32()),  # calibrated, of the most probable label
            )
        ),
        ("child_age_distribution", VECTOR),  # calibrated, in the order of the deployment's stages
        ("child_gender_distribution", VECTOR),  # calibrated, in the order of CHILD_GENDERS
        ("further_tags", pa.list_(pa.string())),  # TAG=VALUE for each further tag that is likely enough, by tag
        ("further_tag_probabilities", VECTOR),  # calibrated, one for each of `further_tags`
        ("tagger_version", pa.string()),
        ("encoder_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
        (INPUT_DIGEST, pa.int64()),
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
        (INPUT_DIGEST, pa.int64()),
    ]
)
"""Table `product_codes`: residual k-means of the fused vector."""

PRODUCT_NEIGHBOURS = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("neighbour_click_rate", pa.float32()),  # of the nearest products with impressions by then, smoothed
        ("neighbour_impressions", pa.float32()),  # ln(1 + their impressions)
        ("neighbour_price", pa.float32()),  # mean of ln(1 + price)
        ("neighbour_age", pa.float32()),  # expected child age stage, an index
        ("neighbour_similarity", pa.float32()),  # mean cosine: the confidence in the other columns
        ("neighbours", pa.int32()),  # number of those products
        ("encoder_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
        (INPUT_DIGEST, pa.int64()),
    ]
)
"""Table `product_neighbours`: statistics of the nearest products strictly before the event timestamp. A product's own
impressions are never used."""

HISTORY_LENGTH = 50
"""Number of a user's last clicks that are kept."""

USER_INTEREST = pa.schema(
    [
        (USER_ID, pa.string()),
        ("interest_vector", VECTOR),  # recency-weighted mean of the clicked fused vectors, not normalized
        ("interest_weight", pa.float32()),  # sum of the decayed weights of the clicks, at the last click
        ("child_age_mix", VECTOR),  # recency-weighted mean distribution of stages at the last click
        ("child_age_weight", pa.float32()),
        ("child_gender_mix", VECTOR),  # the same, in the order of CHILD_GENDERS
        ("child_gender_weight", pa.float32()),
        ("recent_products", pa.list_(pa.string())),  # the last HISTORY_LENGTH clicks, newest first
        ("recent_times", pa.list_(pa.int64())),  # their times, microseconds since 1970 UTC
        ("clicks", pa.int64()),  # number so far
        ("encoder_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),  # one microsecond after the click that made this version
        (CREATED_TIMESTAMP, TIMESTAMP),
        (INPUT_DIGEST, pa.int64()),
    ]
)
"""Table `user_interest`: one version per click, valid from the microsecond after it. So no as-of join, whose bound is
inclusive, joins an impression with its own click. Clicks of one microsecond are one version. The next row is computed
from this row alone (features/interest.py). A vector or mix is null if no click had one."""

PRODUCT_ID_L, PRODUCT_ID_R = "product_id_l", "product_id_r"
"""The two products of a pair; in stored pairs the left id is the smaller one."""

PRODUCT_PICTURE = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("image_hash", pa.binary()),
        ("picture", VECTOR),  # edges and colours (pairs/picture.py); null if it cannot be decoded
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_picture`: what pictures look like beside the encoder's vectors; one row for each picture."""

PRODUCT_PAIR = pa.schema(
    [
        (PRODUCT_ID_L, pa.string()),
        (PRODUCT_ID_R, pa.string()),
        ("pair_probability", pa.float32()),  # that the two are the same, from the pair alone; 0: no longer a candidate
        ("probability", pa.float32()),  # the same with the other pairs of both products
        ("verifier_version", pa.string()),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_pair`: scored pairs, except improbable ones. Of the rows of a pair, the one created last counts."""

PAIR_LABEL = pa.schema(
    [
        ("pair_id", pa.string()),
        (PRODUCT_ID_L, pa.string()),  # the anchor; of a repeat, the recalled product
        (PRODUCT_ID_R, pa.string()),
        ("label", pa.string()),  # of pairs.labels.PAIR_LABELS; null: not judged
        ("labeller", pa.string()),
        ("labelled_at", TIMESTAMP),  # null if not stated
        ("inclusion_probability", pa.float64()),  # probability with which the pair was drawn, in (0, 1]
        ("week", pa.string()),  # name of the sample
        ("category", pa.string()),  # of the anchor, first level
        ("probability", pa.float64()),  # of the verifier, when the pair was drawn
        ("rank", pa.int64()),  # of the recalled product for the anchor, from 1
        ("in_one_group", pa.bool_()),  # when the pair was drawn
        ("is_repeat", pa.bool_()),  # asked a second time
        (CREATED_TIMESTAMP, TIMESTAMP),  # of the import; null in a sample
    ]
)
"""Table `pair_label`: pairs that people judged. Of the rows of a pair, the one created last counts."""

PRODUCT_GROUP = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("group_id", pa.string()),  # products of one group are the same; never null, a product may be alone
        ("verifier_version", pa.string()),
        ("encoder_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
        (INPUT_DIGEST, pa.int64()),
    ]
)
"""Table `product_group`: which offers are the same product. A product's first row is valid from its own event
timestamp. A row with another group is valid from the newest event timestamp of the group's members, so that a join sees
a change of a group only when all of its members exist."""

PRODUCT_GROUP_JOURNAL = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("change", pa.string()),  # joined, merged, split, gone or returned
        ("from_group_id", pa.string()),  # null for `joined`
        ("to_group_id", pa.string()),  # null for `gone`
        ("verifier_version", pa.string()),
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `product_group_journal`: one row for each product and run in which its group changed."""

CAPTION_STYLES = ("plain", "lively")
CAPTION_LANGUAGES = ("zh", "en")

PRODUCT_CAPTION = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("caption", pa.string()),  # null if there is a `missing_reason`
        ("stated", pa.list_(pa.string())),  # TAG=VALUE for each attribute that the caption states
        ("missing_reason", pa.string()),  # why there is no caption; null if there is one
        ("style", pa.string()),  # of CAPTION_STYLES
        ("language", pa.string()),  # of CAPTION_LANGUAGES
        ("captioner_version", pa.string()),  # digest of the encoder, the words and the settings
        ("encoder_version", pa.string()),  # of the checkpoint whose language head wrote the caption
        (EVENT_TIMESTAMP, TIMESTAMP),
        (CREATED_TIMESTAMP, TIMESTAMP),
        (INPUT_DIGEST, pa.int64()),
    ]
)
"""Table `product_caption`: a draft of a selling line, generated from the image, that states only what the tags are sure
of. Rows of version 0.2 and earlier have null in the columns from `stated` to `language` and in `encoder_version`."""

TAG_VARIANTS = ("image and text", "vectors alone", "bag of words", "text tower", "image tower")
"""Inputs of the taggers: the tagger in use first, then the ones it is compared with."""
TAG_SPLITS = ("test",)
"""Labelled products that no classifier was trained on, for the report. Rows of version 0.2 and earlier may also be of
`calibration`."""

TAG_PREDICTIONS = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("group", pa.string()),  # products of one group have the same design and are in one split
        ("tag", pa.string()),  # of TAGS, or a further one
        ("variant", pa.string()),  # of TAG_VARIANTS
        ("split", pa.string()),  # of TAG_SPLITS
        ("truth", pa.string()),  # the label assigned by a person
        ("labels", pa.list_(pa.string())),  # the labels of the classifier
        ("probabilities", VECTOR),  # calibrated, in the order of `labels`
        ("tagger_version", pa.string()),
        (CREATED_TIMESTAMP, TIMESTAMP),
        (INPUT_DIGEST, pa.int64()),
    ]
)
"""Table `tag_predictions`: predictions of the taggers for labelled products that they were not trained on."""

ENCODER_TRAINING = pa.schema(
    [
        ("encoder_version", pa.string()),
        (PRODUCT_ID, pa.string()),
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `encoder_training`: the products that each encoder was trained on, so that reports can tell how it does on
others. Encoders that `produce encoder` did not train have no rows."""

ENCODER_LICENCE = pa.schema(
    [
        ("encoder_version", pa.string()),
        ("licence", pa.string()),  # as its checkpoint states it
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `encoder_licence`: the licence of each encoder that wrote vectors. Encoders that state none have no row."""

PRODUCT_FIRST_FEATURE = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("seconds", pa.float64()),  # from the arrival of the message until the features were online
        (EVENT_TIMESTAMP, TIMESTAMP),  # the product's updated_at
        (CREATED_TIMESTAMP, TIMESTAMP),  # when the message arrived
    ]
)
"""Table `product_first_feature`: time to first feature of every product version that `produce stream` processed."""

UPGRADES = pa.schema(
    [
        ("sequence", pa.int64()),  # 1, 2, ...; the row with the highest number is the current state
        ("state", pa.string()),  # of offline/production.py
        ("production_version", pa.string()),  # encoder version that readers get
        ("candidate_version", pa.string()),  # encoder version that is prepared, or was in production before; or null
        ("options", pa.string()),  # JSON object: the options of `produce upgrade start`
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `encoder_upgrades`: which encoder version is in production, and every step from one version to the next."""

QUARANTINE = pa.schema(
    [
        ("step", pa.string()),  # the command: "catalogue", "embeddings", ...
        ("row_id", pa.string()),  # product_id or impression_id where there is one, else "row 17"
        ("column", pa.string()),
        ("reason", pa.string()),
        ("value", pa.string()),  # the value as it was read, at most 200 characters
        (CREATED_TIMESTAMP, TIMESTAMP),
    ]
)
"""Table `quarantine`: rejected rows, dropped values and repaired values of the input, with the reason."""
