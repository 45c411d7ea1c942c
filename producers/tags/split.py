"""Assigns labelled products to training and test.

The assignment depends only on a hash of the group. Products of one design are therefore on the same side, and a design
stays on its side when labels are added.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

TRAIN, TEST = "train", "test"
TRAIN_SHARE = 0.8
"""Share of the groups that train, on average. The rest is for the test."""
FOLDS = 5
"""Parts into which the groups are divided for cross-validation."""


def assign_splits(groups: Iterable[str]) -> np.ndarray:
    """Return TRAIN or TEST for each group, str [n], in the order of `groups`.

    Equal groups get the same split. About 80% of the different groups train; with few groups a split can be empty.
    """
    position = np.array([_hash_to_unit(group, "split") for group in groups])
    return np.where(position < TRAIN_SHARE, TRAIN, TEST)


def assign_folds(groups: Iterable[str]) -> np.ndarray:
    """Return the cross-validation fold of each group, int64 [n] in [0, FOLDS), in the order of `groups`.

    Equal groups get the same fold. The fold does not depend on the split of the group.
    """
    return np.array([int(_hash_to_unit(group, "fold") * FOLDS) for group in groups], dtype=np.int64)


def _hash_to_unit(group: str, salt: str) -> float:
    """Return a number in [0, 1) that depends only on the group and the salt."""
    digest = blake2b(group.encode(), digest_size=6, salt=salt.encode()).digest()
    return int.from_bytes(digest) / 2**48
