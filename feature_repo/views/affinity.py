"""How close a candidate is to what its user clicked, computed when asked for.

Feast brings the user's and the candidate's rows; what the user clicked last is known by its ids, and its vectors and
codes come with the request: `fetch_with_affinity` (consumers/online/affinity.py) does both reads and is the fast way,
and
needs no Feast.
"""

import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Int32, Int64

from feature_repo.features import affinity, affinity_frame
from feature_repo.views.product import product_codes, product_embedding, product_tags
from feature_repo.views.user import user_interest

history = RequestSource(
    name="history",
    schema=[
        Field(name=affinity_frame.HISTORY_VECTORS, dtype=Array(Float32)),
        Field(name=affinity_frame.HISTORY_CODES, dtype=Array(Int32)),
        Field(name=affinity_frame.RANKED_AT, dtype=Int64),
    ],
    description="Vectors and codes of the user's `recent_products`, laid end to end, and the moment, in microseconds.",
)


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[
        user_interest,
        product_embedding[["fused_vector", "encoder_version"]],
        product_tags[["child_age_distribution", "child_gender_distribution"]],
        product_codes[["codes"]],
        history,
    ],
    schema=[Field(name=name, dtype=Float32) for name in affinity.NAMES],
    mode="pandas",
    description="How close a candidate is to what its user clicked. Ask for it with full feature names.",
)
def user_product_affinity(inputs: pd.DataFrame) -> pd.DataFrame:
    # Imported here: Feast keeps the source of this function and runs it without the rest of the module.
    from feature_repo.features.affinity_frame import compute_affinity_frame

    return compute_affinity_frame(inputs)
