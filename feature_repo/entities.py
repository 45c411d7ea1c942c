"""Feast entities: product and user."""

from feast import Entity, ValueType

from feature_repo.schema import PRODUCT_ID, USER_ID

product = Entity(name="product", join_keys=[PRODUCT_ID], value_type=ValueType.STRING, description="A product on sale.")
user = Entity(name="user", join_keys=[USER_ID], value_type=ValueType.STRING, description="A shopper.")
