"""An independent random generator for each part of the shop: changing one part does not change the others."""

import zlib

import numpy as np


def make_generator(seed: int, part: str, *numbers: int) -> np.random.Generator:
    """Return a new generator for a part of the shop. The same arguments give the same random numbers.

    Args:
        seed: the shop's seed, at least 0.
        part: the part's name, any text. Renaming a part changes the shop.
        *numbers: a member of the part, for example a product's row; at least 0 each. Left out for the whole part.

    Raises:
        ValueError: the seed or a number is negative.
    """
    return np.random.default_rng([seed, zlib.crc32(part.encode()), *numbers])
