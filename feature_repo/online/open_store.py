"""Open an online store: by its URL, or as feature_store.yaml describes it, in both cases without Feast.

The library of a store (lmdb, redis) is imported when a store of that kind is opened. The online reader imports this
module, so PyYAML and the configuration are imported only by `open_configured_table`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from feature_repo.errors import InvalidInputError
from feature_repo.online.redact import redact_url
from feature_repo.online.store import Store

if TYPE_CHECKING:
    from feature_repo.config import Settings
    from feature_repo.online.redis_store import RedisStore
    from feature_repo.online.table import OnlineTable

LMDB = "feature_repo.stores.online.LMDBOnlineStore"
"""`online_store.type` in feature_store.yaml for a store in an LMDB file."""
REDIS = "feature_repo.stores.online.RedisOnlineStore"
"""`online_store.type` in feature_store.yaml for a store in Redis."""


def open_store(url: str) -> Store:
    """Open the store at a URL.

    Args:
        url: lmdb:///folder with an absolute path; or redis://, rediss://, redis-cluster:// or redis-sentinel://, as
            redis_connection.py describes them.

    Raises:
        InvalidInputError: the URL is malformed or of another scheme.
        NotFoundError: the LMDB folder holds no store.
        CorruptDataError: the LMDB file is damaged.
        UnavailableError: the store does not answer; a single Redis server is first asked when it is used.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _unsupported_url(url) from error
    if parts.scheme == "lmdb":
        from feature_repo.online.lmdb_store import LMDBStore

        return LMDBStore(Path(parts.path), create=False)
    if parts.scheme.startswith("redis"):
        from feature_repo.online.redis_connection import parse_url
        from feature_repo.online.redis_store import RedisStore

        return RedisStore(parse_url(url))
    raise _unsupported_url(url)


def open_redis_store(
    connection_string: str, redis_type: str, sentinel_master: str, key_ttl_seconds: int | None
) -> "RedisStore":
    """Open the store that `online_store` of feature_store.yaml describes with the options of Feast's own Redis store.

    Args:
        connection_string: hosts and options as host:port,host:port,option=value,...; a host without a port gets 6379.
        redis_type: "redis", "redis_cluster" or "redis_sentinel".
        sentinel_master: name that the Sentinels know the master by; ignored for other types.
        key_ttl_seconds: every row expires at most this long after it is written; None: a day after its view's TTL.

    Raises:
        InvalidInputError: the connection string or `redis_type` is invalid.
        UnavailableError: a cluster does not answer; other kinds connect at first use.
    """
    from feature_repo.online.redis_connection import parse_connection_string
    from feature_repo.online.redis_store import RedisStore

    address = parse_connection_string(connection_string, redis_type, sentinel_master)
    return RedisStore(address, max_ttl_seconds=key_ttl_seconds)


def open_configured_table(settings: "Settings") -> "OnlineTable | None":
    """Open the online rows of the deployment's project.

    Args:
        settings: the deployment's feature_store.yaml.

    Returns:
        The rows of the project, whose store the caller closes; None if the deployment has no online store, or its LMDB
        file does not exist yet.

    Raises:
        InvalidInputError: the store is of another type, or one of its options is missing or invalid.
        CorruptDataError: the LMDB file is damaged.
        UnavailableError: the store does not answer.
    """
    from feature_repo.online.table import OnlineTable

    online_store = settings.raw.get("online_store")
    if not online_store:
        return None
    kind = online_store.get("type") if isinstance(online_store, dict) else online_store
    if kind == LMDB:
        folder = settings.file.parent / _read_text(settings, online_store, "path")
        if not (folder / "data.mdb").is_file():
            return None
        from feature_repo.online.lmdb_store import LMDBStore

        return OnlineTable(LMDBStore(folder, create=False), settings.project)
    if kind == REDIS:
        store = open_redis_store(
            _read_text(settings, online_store, "connection_string", "localhost:6379"),
            _read_text(settings, online_store, "redis_type", "redis"),
            _read_text(settings, online_store, "sentinel_master", "mymaster"),
            _read_seconds(settings, online_store, "key_ttl_seconds"),
        )
        return OnlineTable(store, settings.project)
    raise InvalidInputError(f"{settings.file}: online_store.type is {kind!r}; expected {LMDB} or {REDIS}")


def _unsupported_url(url: str) -> InvalidInputError:
    return InvalidInputError(
        f"`{redact_url(url)}` is not the URL of an online store; expected lmdb:///folder or redis://host:port"
    )


def _read_text(settings: "Settings", online_store: dict[str, Any], name: str, default: str | None = None) -> str:
    """Return an option that must be text; raise InvalidInputError if it is not, or is missing without a default."""
    from feature_repo.config import require_text

    return require_text(settings.file, f"online_store.{name}", online_store.get(name, default))


def _read_seconds(settings: "Settings", online_store: dict[str, Any], name: str) -> int | None:
    """Return an option that is a whole number of seconds; None if it is missing."""
    value = online_store.get(name)
    if value is None or type(value) is int:
        return value
    raise InvalidInputError(f"{settings.file}: online_store.{name} is {value!r}; expected a whole number of seconds")
