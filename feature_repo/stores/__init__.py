"""Feast's plug-in points, named by class path in feature_store.yaml: thin adapters over `offline/` and `online/`.

offline.py        the offline store
sources.py        Feast's views and FileSources as tables: paths, columns, reading and appending
entity_rows.py    the entity rows of a training set
retrieval.py      the jobs that compute training sets and stretches of history
online/           the online stores, LMDB and Redis
engine.py         the batch engine: offline tables to online rows
encoder_views.py  the rows of one encoder version online: write, switch, remove
feature_store.py  opens a deployment's FeatureStore, independent of the working directory
registry_path.py  makes a relative SQLite path of the registry start at the repository's folder
feast_compat.py   the parts of Feast that we use beyond its plug-in points: check these before an upgrade
"""

from feature_repo import extras, feast_import

extras.require("store", "feast", "deltalake")
feast_import.defer_torch()

from feature_repo.stores import registry_path  # noqa: E402 - it imports Feast

registry_path.install()
