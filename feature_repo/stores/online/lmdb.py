"""The embedded online store: an LMDB file, without a server.

online_store:
  type: feature_repo.stores.online.LMDBOnlineStore
  path: ../data/online   # a folder, relative to this file
"""

from pathlib import Path
from typing import Literal

from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictStr

from feature_repo.online.lmdb_store import LMDBStore
from feature_repo.stores.online.packed import PackedOnlineStore


class LMDBOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store` in feature_store.yaml."""

    type: Literal["feature_repo.stores.online.LMDBOnlineStore"] = "feature_repo.stores.online.LMDBOnlineStore"
    path: StrictStr
    """The folder of the LMDB file, relative to the folder of feature_store.yaml."""


class LMDBOnlineStore(PackedOnlineStore):
    """Feast's online store on packed rows in LMDB. The folder is created if it is missing."""

    def _open(self, config: RepoConfig) -> LMDBStore:
        return LMDBStore(Path(config.repo_path or ".") / config.online_store.path, create=True)
