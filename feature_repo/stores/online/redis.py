"""The online store for services: Redis 6.2 or later, with the options of Feast's own Redis store.

online_store:
  type: feature_repo.stores.online.RedisOnlineStore
  connection_string: localhost:6379
"""

from typing import Literal

from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictBool, StrictStr, field_validator

from feature_repo.online.open_store import open_redis_store
from feature_repo.online.redis_store import RedisStore
from feature_repo.stores.online.packed import PackedOnlineStore


class RedisOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store` in feature_store.yaml; the names are those of Feast's own Redis store."""

    type: Literal["feature_repo.stores.online.RedisOnlineStore"] = "feature_repo.stores.online.RedisOnlineStore"
    redis_type: Literal["redis", "redis_cluster", "redis_sentinel"] = "redis"
    """One server, a cluster, or a master behind Sentinels."""
    sentinel_master: StrictStr = "mymaster"
    """The name that the Sentinels know the master by; only for "redis_sentinel"."""
    connection_string: StrictStr = "localhost:6379"
    """host:port,host:port,option=value,...: the options are redis-py's (ssl, ssl_ca_certs, username, password, db).
    Or a URL as redis_connection.py describes it, for passwords with a comma: redis://:PASS%2CWORD@host:6379."""
    key_ttl_seconds: int | None = None
    """Seconds after it is written when a row expires at the latest; None: it expires a day after its view's TTL."""
    full_scan_for_deletion: StrictBool = True
    """Whether `feast apply` scans all keys for the rows of a deleted view and deletes them. Otherwise the rows stay
    until they expire."""
    client: Literal["redis"] = "redis"
    """The only client that is supported."""
    skip_dedup: StrictBool = False
    """Must be false: true would let an older row replace a newer one, and is refused."""

    @field_validator("skip_dedup")
    @classmethod
    def _refuse_skip_dedup(cls, value: bool) -> bool:
        if value:
            raise ValueError("skip_dedup would let an older row replace a newer one; remove it from online_store")
        return value


class RedisOnlineStore(PackedOnlineStore):
    """Feast's online store on packed rows in Redis: one server, a cluster, or a master behind Sentinels."""

    def _open(self, config: RepoConfig) -> RedisStore:
        options = config.online_store
        return open_redis_store(
            options.connection_string, options.redis_type, options.sentinel_master, options.key_ttl_seconds
        )

    def _deletes_rows(self, config: RepoConfig) -> bool:
        return config.online_store.full_scan_for_deletion
