"""Feast entities: product and user."""

from feast import Entity, ValueType

from feature_repo.config import find_owner
from feature_repo.schema import PRODUCT_ID, USER_ID

OWNER = find_owner()
"""Owner of all Feast objects."""

product = Entity(
    name="product",
    join_keys=[PRODUCT_ID],
    value_type=ValueType.STRING,
    description="A product on sale.",
    owner=OWNER,
)
user = Entity(name="user", join_keys=[USER_ID], value_type=ValueType.STRING, description="A shopper.", owner=OWNER)
