"""Deprecated alias of `consumers.online.FeatureBatch`; removed in the next version."""

import warnings

from feature_repo.online.feature_batch import FeatureBatch as Block

__all__ = ["Block"]

warnings.warn("consumers.block.Block is now consumers.online.FeatureBatch", DeprecationWarning, stacklevel=2)
