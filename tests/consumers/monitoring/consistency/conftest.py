"""A Feast project, on each online store."""

from tests.feature_repo.stores.conftest import online_config, redis, store

__all__ = ["online_config", "redis", "store"]
