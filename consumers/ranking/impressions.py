"""The log read and checked: producers read it too, so it lies with the tables."""

from feature_repo.offline.impressions import Impressions, read_impressions

__all__ = ["Impressions", "read_impressions"]
