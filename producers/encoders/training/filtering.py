"""Pairs that teach the wrong thing, left out.

`looks`       pictures without anything to see, titles of hardly a word: known before training
`similarity`  the pairs that the half-trained towers find least alike, as BLIP's filter does with the web's captions
              (Li et al. 2022, section 3.3): known at half of the steps
"""

import numpy as np
from numpy.typing import NDArray

from producers.encoders.training.pairs import Pairs, Preparation
from producers.encoders.training.towers import Towers, vectors_of

FLAT = 4.0
"""Standard deviation of a picture's grey values (0 to 255) below which there is nothing to see."""
SHORTEST = 2
"""Fewest tokens of a title, besides the special ones."""
LEAST_ALIKE = 0.1
"""Share of the pairs that `similarity` leaves out."""
AT_ONCE = 256


def by_looks(pairs: Pairs) -> NDArray[np.bool_]:
    """Which pairs to keep [n]."""
    deviation = np.concatenate(
        [pairs.pixels[start : start + AT_ONCE].mean(axis=3).std(axis=(1, 2)) for start in range(0, len(pairs), AT_ONCE)]
    )
    words = ((pairs.mask > 0) & ~np.isin(pairs.tokens, pairs.special)).sum(axis=1)
    return (deviation >= FLAT) & (words >= SHORTEST)


def by_similarity(towers: Towers, pairs: Pairs, preparation: Preparation) -> NDArray[np.bool_]:
    """Which pairs to keep [n]: all but the LEAST_ALIKE, by the cosine of image and text."""
    image, text = vectors_of(towers, pairs, preparation, np.arange(len(pairs)))
    cosine = (image * text).sum(axis=1)
    return cosine > np.quantile(cosine, LEAST_ALIKE)
