"""An online store by its address, whichever it is: its library is imported only then."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from feature_repo.errors import VitrineError
from feature_repo.online.store import Store

if TYPE_CHECKING:
    from feature_repo.online.redis_store import RedisStore


def open_store(url: str) -> Store:
    """The store at lmdb:///folder, or at a Redis address as redis_address.py has it.

    Raises:
        VitrineError: the URL is of no store, or there is nothing at it.
    """
    wrong = VitrineError(f"`{url.rpartition('@')[2]}` is no online store; wanted lmdb:///folder or redis://host:port")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise wrong from error
    if parts.scheme == "lmdb":
        from feature_repo.online.lmdb_store import LMDBStore

        return LMDBStore(Path(parts.path), create=False)
    if parts.scheme.startswith("redis"):
        from feature_repo.online.redis_connection import from_url
        from feature_repo.online.redis_store import RedisStore

        return RedisStore(from_url(url))
    raise wrong


def open_redis(
    connection_string: str, redis_type: str, sentinel_master: str, key_ttl_seconds: int | None
) -> "RedisStore":
    """The store that `online_store` of a feature_store.yaml describes, in the words of Feast's own Redis store.

    Args:
        key_ttl_seconds: after which a row goes at the latest; None: a day after its view's TTL.

    Raises:
        VitrineError: the connection string is of no store.
    """
    from feature_repo.online.redis_connection import from_connection_string
    from feature_repo.online.redis_store import RedisStore

    address = from_connection_string(connection_string, redis_type, sentinel_master)
    return RedisStore(address, longest_life=key_ttl_seconds)
