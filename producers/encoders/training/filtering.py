"""Filters that leave pairs out of training.

`looks`       leaves out blank images and titles with fewer than MIN_TITLE_TOKENS words, before training
`similarity`  leaves out the least similar pairs by the half-trained towers, as BLIP's filter does with captions from
              the web (Li et al. 2022, section 3.3)
"""

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InvalidInputError
from producers.encoders.training.pairs import Preprocessor, TrainingPairs
from producers.encoders.training.towers import Towers, encode_pairs

MIN_GREY_DEVIATION = 4.0
"""Standard deviation of an image's grey values (0 to 255) below which the image counts as blank."""
MIN_TITLE_TOKENS = 2
"""Fewest tokens of a title, special tokens excluded."""
DROPPED_SHARE = 0.1
"""Share of the pairs that `similarity` leaves out."""
IMAGES_PER_CHUNK = 256
"""Images whose grey values are in memory at once."""


def filter_by_looks(pairs: TrainingPairs) -> NDArray[np.bool_]:
    """Return whether to keep each pair, bool [n]: its image is not blank and its title is long enough.

    The bounds are inclusive: a pair with exactly MIN_GREY_DEVIATION and MIN_TITLE_TOKENS is kept. Repeated words count
    each time. There must be at least one pair.

    Raises:
        InvalidInputError: no pair is kept.
    """
    deviation = np.concatenate(
        [
            pairs.pixels[start : start + IMAGES_PER_CHUNK].mean(axis=3).std(axis=(1, 2))
            for start in range(0, len(pairs), IMAGES_PER_CHUNK)
        ]
    )
    words = ((pairs.mask > 0) & ~np.isin(pairs.tokens, pairs.special_tokens)).sum(axis=1)
    kept = (deviation >= MIN_GREY_DEVIATION) & (words >= MIN_TITLE_TOKENS)
    if not kept.any():
        raise InvalidInputError(
            f"no pair of an image and a title is left to train on: in each of {len(kept)} the image is blank or the "
            f"title has fewer than {MIN_TITLE_TOKENS} words; check the data, or train with `--filter none`"
        )
    return kept


def filter_by_similarity(towers: Towers, pairs: TrainingPairs, preprocessor: Preprocessor) -> NDArray[np.bool_]:
    """Return whether to keep each pair, bool [n]: the cosine of its image and title is not among the lowest.

    Args:
        towers: the towers that compute the vectors.
        pairs: all pairs, at least one.
        preprocessor: the preprocessing of the towers' checkpoint.

    Returns:
        True where the cosine is above the DROPPED_SHARE quantile of all cosines. A cosine equal to it is dropped, so no
        pair is kept if all cosines are equal.
    """
    image, text = encode_pairs(towers, pairs, preprocessor, np.arange(len(pairs)))
    cosine = (image * text).sum(axis=1)
    return cosine > np.quantile(cosine, DROPPED_SHARE)
