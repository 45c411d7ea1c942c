"""Online features for ranking services, without Feast and without a registry.

reader.py         `OnlineReader`: features of n entities as arrays
two_hops.py       a fetch of some entities and of others that they name
errors.py         what a store may lack: views, services, features
affinity.py       features of a user's candidates, with their affinity to the user's clicks
encoder_guard.py  refuses features of two encoder versions in one request
coverage.py       features that say what is missing for each candidate, and how old its vector is
"""

import warnings
from typing import Any

from consumers.online.errors import NoServicesError, UnknownFeaturesError
from consumers.online.reader import OnlineReader
from consumers.online.two_hops import Link
from feature_repo.errors import IncompleteStoreError
from feature_repo.online.decode import Status
from feature_repo.online.feature_batch import FeatureBatch

__all__ = [
    "FeatureBatch",
    "IncompleteStoreError",
    "Link",
    "NoServicesError",
    "OnlineReader",
    "Status",
    "UnknownFeaturesError",
]

_RENAMED = {"Block": FeatureBatch, "NoServices": NoServicesError, "UnknownFeatures": UnknownFeaturesError}
"""Names of the last version. They go in the next."""


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = _RENAMED[name]
    warnings.warn(f"consumers.online.{name} is now consumers.online.{new.__name__}", DeprecationWarning, stacklevel=2)
    return new
