"""The best pictures for each text, by the cosine of their vectors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from producers.encoders.encoder import Vectors

TEXTS = 512
"""Texts whose cosines with all pictures are in memory at a time."""


class Ranking(NamedTuple):
    """The best pictures for n texts, best first."""

    pictures: NDArray[np.int64]
    """[n, k], positions of the pictures; -1 where a text has no vector, or there are fewer usable pictures."""
    cosines: NDArray[np.float32]
    """[n, k], their cosines; NaN where `pictures` is -1."""


def rank_pictures(texts: Vectors, pictures: Vectors, top_k: int) -> Ranking:
    """Return the `top_k` pictures with the largest cosine for each text. Of equal cosines the earlier picture is first.

    Args:
        texts: unit rows [n, dim]; NaN where a text has no vector.
        pictures: unit rows [m, dim]; NaN where a picture has none; such pictures are never returned.
        top_k: at least 1.
    """
    usable = np.flatnonzero(np.isfinite(pictures).all(axis=1))
    found = np.full((len(texts), top_k), -1, np.int64)
    cosines = np.full((len(texts), top_k), np.nan, np.float32)
    depth = min(top_k, len(usable))
    known = np.flatnonzero(np.isfinite(texts).all(axis=1))
    for start in range(0, len(known) if depth else 0, TEXTS):
        rows = known[start : start + TEXTS]
        scores = texts[rows] @ pictures[usable].T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        found[rows, :depth] = usable[order]
        cosines[rows, :depth] = np.take_along_axis(scores, order, axis=1)
    return Ranking(found, cosines)
