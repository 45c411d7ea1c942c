"""Feast's online store on packed rows (online/row_format.py), in LMDB or in Redis.

packed.py         the OnlineStore, for both kinds of store
lmdb.py           LMDB, embedded: the default
redis.py          Redis, for services
feast_request.py  plans a call of get_online_features
response.py       its response: columns, converted to protobuf or Python values on request
documents.py      the nearest products of a vector, by the index of `produce index`
values.py         protobuf messages to columns and keys, and back
views.py          Feast's views and services as the catalog's
"""

from feature_repo.stores.online.lmdb import LMDBOnlineStore, LMDBOnlineStoreConfig
from feature_repo.stores.online.redis import RedisOnlineStore, RedisOnlineStoreConfig

__all__ = ["LMDBOnlineStore", "LMDBOnlineStoreConfig", "RedisOnlineStore", "RedisOnlineStoreConfig"]
