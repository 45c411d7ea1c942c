"""Validation of a fine-tuned checkpoint on whole designs that it is not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from producers.encoders.recall import CUTOFFS, text_to_image_recall
from producers.encoders.training.pairs import Preprocessor, TrainingPairs
from producers.encoders.training.towers import Towers, encode_pairs

SHARE = 0.1
"""Share of the pairs that are held out, at most."""
MAX_PAIRS = 2_000
"""Most pairs that are held out."""
MIN_PAIRS = 50
"""With fewer pairs the recall would be chance, and nothing is held out."""
EVALUATIONS = 10
"""How often the recall is measured during a training."""
PATIENCE = 3
"""Measurements without a higher recall after which a training stops."""


@dataclass(frozen=True)
class Validation:
    """Pairs that are not trained on."""

    rows: NDArray[np.int64]
    """Their rows in `TrainingPairs` [v], ascending."""
    designs: NDArray[np.int64]
    """A number for each, equal for pairs of one design [v]. An image is a right answer for titles of its design."""

    def is_due(self, steps_done: int, steps: int) -> bool:
        """Return whether the recall is measured after some steps of a training."""
        return steps_done == steps or steps_done % max(1, steps // EVALUATIONS) == 0

    def measure_recall(self, towers: Towers, pairs: TrainingPairs, preprocessor: Preprocessor) -> float:
        """Return the mean of text-to-image recall@k over `recall.CUTOFFS`, among the validation pairs."""
        image, text = encode_pairs(towers, pairs, preprocessor, self.rows)
        recall = text_to_image_recall(text, image, self.designs, cutoffs=CUTOFFS)
        return float(np.mean(list(recall.values())))


def hold_out_designs(designs: Sequence[object], is_seen: Sequence[bool]) -> Validation | None:
    """Hold out designs with up to SHARE of the pairs, at most MAX_PAIRS; None if these are fewer than MIN_PAIRS pairs.

    Designs are taken in the order of a hash of their names, so that most stay held out when products are added. Those
    that the checkpoint was trained on before come last, because their recall is higher than that of others.

    Args:
        designs: the design of each pair [n], such as an id, or its title.
        is_seen: whether the checkpoint was trained on each pair before [n].
    """
    names, design = np.unique([str(name) for name in designs], return_inverse=True)
    position = np.array([_hash_to_unit(name) for name in names])
    position += np.bincount(design, np.asarray(is_seen, float), minlength=len(names)) > 0
    by_hash = np.argsort(position, kind="stable")
    sizes = np.bincount(design, minlength=len(names))[by_hash]
    fits = np.cumsum(sizes) <= min(MAX_PAIRS, round(SHARE * len(design)))
    rows = np.flatnonzero(np.isin(design, by_hash[fits]))
    return Validation(rows, design[rows].astype(np.int64)) if len(rows) >= MIN_PAIRS else None


def _hash_to_unit(name: str) -> float:
    """Return a number in [0, 1) that depends on the name only."""
    digest = blake2b(name.encode(), digest_size=6, person=b"validation").digest()
    return int.from_bytes(digest) / 2**48
