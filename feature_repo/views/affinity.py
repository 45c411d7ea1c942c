"""On-demand feature view: affinity of a candidate to what its user clicked.

Feast reads the rows of the user and the candidate. The user's row holds only the ids of the last clicks, so their
vectors and codes must be in the request. `fetch_with_affinity` (consumers/online/affinity.py) does both reads, is
faster and needs no Feast.
"""

import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Int32, Int64

from feature_repo.entities import OWNER
from feature_repo.features import affinity, affinity_frame, meanings
from feature_repo.views.product import product_codes, product_embedding, product_tags
from feature_repo.views.user import user_interest
from feature_repo.views.view_tags import COMPARABLE_WITHIN, PRODUCER

history = RequestSource(
    name="history",
    schema=[
        Field(name=affinity_frame.HISTORY_VECTORS, dtype=Array(Float32)),
        Field(name=affinity_frame.HISTORY_CODES, dtype=Array(Int32)),
        Field(name=affinity_frame.RANKED_AT, dtype=Int64),
    ],
    description="Concatenated vectors and codes of the user's `recent_products`, and the time in microseconds.",
)


DESCRIPTION = "Affinity of a candidate to what its user clicked. Request it with full feature names."


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[
        user_interest,
        product_embedding[["fused_vector", "encoder_version"]],
        product_tags[["child_age_distribution", "child_gender_distribution"]],
        product_codes[["codes"]],
        history,
    ],
    # Without descriptions: Feast drops those of an on-demand view when it reads it, and then refuses every service that
    # has them. They are in the description of the view.
    schema=[Field(name=name, dtype=Float32) for name in affinity.NAMES],
    mode="pandas",
    description="\n".join([DESCRIPTION, *(f"{name}: {meanings.AFFINITY[name]}" for name in affinity.NAMES)]),
    tags={PRODUCER: "computed on request", COMPARABLE_WITHIN: "encoder_version"},
    owner=OWNER,
)
def user_product_affinity(inputs: pd.DataFrame) -> pd.DataFrame:
    """Compute the affinity features of a frame with one row per user and candidate."""
    # Imported here, because Feast stores the source of this function and runs it without the module around it.
    from feature_repo import config
    from feature_repo.features.affinity_frame import compute_affinity_frame

    return compute_affinity_frame(inputs, config.find_age_scale().bounds)
