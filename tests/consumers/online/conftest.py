"""The small Feast project that the reader is tested on, in each online store."""

from tests.feature_repo.online.conftest import online_config, redis
from tests.feature_repo.stores.online.conftest import own_store, shared_store, store, url

__all__ = ["online_config", "own_store", "redis", "shared_store", "store", "url"]
