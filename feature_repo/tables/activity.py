"""Deprecated: use `feature_repo.offline.versions`. Will be removed in the next version."""

import warnings

from feature_repo.offline.versions import read_active_products as active
from feature_repo.offline.versions import read_gone_products as gone

__all__ = ["active", "gone"]

warnings.warn(
    "feature_repo.tables.activity is deprecated; use feature_repo.offline.versions.read_active_products",
    DeprecationWarning,
    stacklevel=2,
)
