"""Feast's online store on packed rows (tables/layout.py), in LMDB or in Redis.

packed.py    the contract of an online store, whichever holds the rows
lmdb.py      LMDB, embedded: the default
redis.py     Redis, for services
plan.py      what a call of `get_online_features` asks of which views
response.py  what it hands out
values.py    protobuf values to columns and back
views.py     Feast's views as the store's own
"""

from feature_repo.stores.online.lmdb import LMDBOnlineStore, LMDBOnlineStoreConfig
from feature_repo.stores.online.redis import RedisOnlineStore, RedisOnlineStoreConfig

__all__ = ["LMDBOnlineStore", "LMDBOnlineStoreConfig", "RedisOnlineStore", "RedisOnlineStoreConfig"]
