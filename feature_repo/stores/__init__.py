"""Feast's plug-in points, named by class path in feature_store.yaml: thin adapters over `tables/`."""
