"""Feast's plug-in points, named by class path in feature_store.yaml: thin adapters over `tables/`.

offline.py      the offline store
view_tables.py  which table and columns a request means
entity_rows.py  the rows of a training set
retrieval.py    what the offline store hands out
sources.py      a FileSource as a table: where it lies, what it holds, how rows are added
online/         the online stores, LMDB and Redis
engine.py       the batch engine: offline tables to online rows
feature_store.py  a deployment's FeatureStore, from whichever folder the program runs in
feast_compat.py  what we lean on in Feast beyond its plug-in points: where an upgrade begins
"""

from feature_repo import extras

extras.require("store", "feast", "deltalake")
