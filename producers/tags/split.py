"""Which labelled products train a tagger, which calibrate it, and which test it.

The side of a product follows from a hash of its group alone: products of one design stand on one side, and a design
keeps its side whatever labels come later.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

TRAIN, CALIBRATION, TEST = "train", "calibration", "test"
TRAIN_SHARE = 0.6
CALIBRATION_SHARE = 0.2
FOLDS = 5


def assign_splits(groups: Iterable[str]) -> np.ndarray:
    """The side of each product: TRAIN, CALIBRATION or TEST; str [n], in the order of `groups`.

    About 60%, 20% and 20% of the groups; few groups may leave a side empty.
    """
    place = np.array([_place(group, "split") for group in groups])
    return np.where(place < TRAIN_SHARE, TRAIN, np.where(place < TRAIN_SHARE + CALIBRATION_SHARE, CALIBRATION, TEST))


def assign_folds(groups: Iterable[str]) -> np.ndarray:
    """The fold of each product, in [0, FOLDS): int64 [n]; independent of `splits`."""
    return np.array([int(_place(group, "fold") * FOLDS) for group in groups], dtype=np.int64)


def _place(group: str, salt: str) -> float:
    """A point in [0, 1) that depends on the group and the salt alone."""
    digest = blake2b(group.encode(), digest_size=6, salt=salt.encode()).digest()
    return int.from_bytes(digest) / 2**48
