"""Feature view of a user."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Array, Float32, Int64, String

from feature_repo import schema
from feature_repo.entities import OWNER, user
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, HISTORY_LENGTH
from feature_repo.sources import delta_source
from feature_repo.views.storage import AGES, FEW, HALF
from feature_repo.views.view_tags import ENCODER_VERSION, make_view_tags

WHILE_REMEMBERED = timedelta(days=36_500)
"""TTL: a row is valid until the user's next click. `recent_times` has its age."""

user_interest = FeatureView(
    name=schema.INTEREST_TABLE,
    entities=[user],
    ttl=WHILE_REMEMBERED,
    schema=[
        Field(
            name="interest_vector",
            dtype=Array(Float32),
            tags=HALF,
            description="recency-weighted mean of the clicked products' fused vectors, not of unit length",
        ),
        Field(name="interest_weight", dtype=Float32, description="sum of the decayed weights of the clicks"),
        Field(
            name="child_age_mix",
            dtype=Array(Float32),
            vector_length=len(CHILD_AGES),
            tags=AGES,
            description="recency-weighted mean distribution of age stages at the last click",
        ),
        Field(name="child_age_weight", dtype=Float32, description="weight of the clicks behind child_age_mix"),
        Field(
            name="child_gender_mix",
            dtype=Array(Float32),
            vector_length=len(CHILD_GENDERS),
            description=f"recency-weighted mean distribution of genders: {', '.join(CHILD_GENDERS)}",
        ),
        Field(name="child_gender_weight", dtype=Float32, description="weight of the clicks behind child_gender_mix"),
        Field(
            name="recent_products", dtype=Array(String), description=f"the last {HISTORY_LENGTH} clicks, newest first"
        ),
        Field(
            name="recent_times", dtype=Array(Int64), description="times of these clicks, microseconds since 1970 UTC"
        ),
        Field(name="clicks", dtype=Int64, description="number of clicks so far"),
        Field(name="encoder_version", dtype=String, tags=FEW, description=ENCODER_VERSION),
    ],
    source=delta_source(schema.INTEREST_TABLE),
    description="A user's interest from the clicks strictly before the time of the row.",
    tags=make_view_tags(schema.INTEREST_TABLE, comparable_within="encoder_version"),
    owner=OWNER,
)
