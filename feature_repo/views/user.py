"""Feature view of a user."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Array, Float32, Int64, String

from feature_repo import schema
from feature_repo.entities import user
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS
from feature_repo.sources import delta_source
from feature_repo.views.storage import AGES, FEW, HALF

WHILE_REMEMBERED = timedelta(days=36_500)
"""TTL: a row is valid until the user's next click. `recent_times` has its age."""

user_interest = FeatureView(
    name=schema.INTEREST_TABLE,
    entities=[user],
    ttl=WHILE_REMEMBERED,
    schema=[
        Field(name="interest_vector", dtype=Array(Float32), tags=HALF),
        Field(name="interest_weight", dtype=Float32),
        Field(name="child_age_mix", dtype=Array(Float32), vector_length=len(CHILD_AGES), tags=AGES),
        Field(name="child_age_weight", dtype=Float32),
        Field(name="child_gender_mix", dtype=Array(Float32), vector_length=len(CHILD_GENDERS)),
        Field(name="child_gender_weight", dtype=Float32),
        Field(name="recent_products", dtype=Array(String)),
        Field(name="recent_times", dtype=Array(Int64)),
        Field(name="clicks", dtype=Int64),
        Field(name="encoder_version", dtype=String, tags=FEW),
    ],
    source=delta_source(schema.INTEREST_TABLE),
    description="A user's interest from the clicks strictly before the time of the row.",
)
