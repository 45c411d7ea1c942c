"""The online store of a deployment, as feature_store.yaml names it, opened without Feast."""

from typing import Any

from feature_repo.config import Settings, text
from feature_repo.errors import VitrineError
from feature_repo.online.opening import open_redis
from feature_repo.online.table import OnlineTable

LMDB = "feature_repo.stores.online.LMDBOnlineStore"
REDIS = "feature_repo.stores.online.RedisOnlineStore"


def open_online(settings: Settings) -> OnlineTable | None:
    """The project's online rows; None if the deployment names no online store, or its LMDB folder is not there yet.

    Raises:
        VitrineError: the store is of another kind, lacks its address, or cannot be opened.
    """
    chosen = settings.raw.get("online_store")
    if not chosen:
        return None
    kind = chosen.get("type") if isinstance(chosen, dict) else chosen
    if kind == LMDB:
        folder = settings.file.parent / _text(settings, chosen, "path")
        if not (folder / "data.mdb").is_file():
            return None
        from feature_repo.online.lmdb_store import LMDBStore

        return OnlineTable(LMDBStore(folder, create=False), settings.project)
    if kind == REDIS:
        store = open_redis(
            _text(settings, chosen, "connection_string", "localhost:6379"),
            _text(settings, chosen, "redis_type", "redis"),
            _text(settings, chosen, "sentinel_master", "mymaster"),
            _seconds(settings, chosen, "key_ttl_seconds"),
        )
        return OnlineTable(store, settings.project)
    raise VitrineError(f"{settings.file}: online_store.type is {kind!r}; wanted {LMDB} or {REDIS}")


def _text(settings: Settings, chosen: dict[str, Any], name: str, default: str | None = None) -> str:
    return text(settings.file, f"online_store.{name}", chosen.get(name, default))


def _seconds(settings: Settings, chosen: dict[str, Any], name: str) -> int | None:
    value = chosen.get(name)
    if value is None or type(value) is int:
        return value
    raise VitrineError(f"{settings.file}: online_store.{name} is {value!r}; wanted whole seconds")
