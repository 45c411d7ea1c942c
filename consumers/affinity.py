"""Deprecated alias of `consumers.online.affinity`; removed in the next version."""

import warnings

from consumers.online.affinity import fetch_with_affinity

__all__ = ["fetch_with_affinity"]

warnings.warn(
    "consumers.affinity.fetch_with_affinity is now consumers.online.affinity.fetch_with_affinity",
    DeprecationWarning,
    stacklevel=2,
)
