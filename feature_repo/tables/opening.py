"""An online store by its address, whichever it is: its library is imported only then."""

from pathlib import Path
from urllib.parse import urlsplit

from feature_repo.errors import VitrineError
from feature_repo.tables.store import Store


def open_store(url: str) -> Store:
    """The store at lmdb:///folder, or at a Redis address as redis_address.py has it.

    Raises:
        VitrineError: the URL is of no store, or there is nothing at it.
    """
    scheme = urlsplit(url).scheme
    if scheme == "lmdb":
        from feature_repo.tables.lmdb_table import LMDBStore

        return LMDBStore(Path(urlsplit(url).path), create=False)
    if scheme.startswith("redis"):
        from feature_repo.tables.redis_address import from_url
        from feature_repo.tables.redis_table import RedisStore

        return RedisStore(from_url(url))
    raise VitrineError(f"`{url}` is no online store; wanted lmdb:///folder or redis://host:port")
