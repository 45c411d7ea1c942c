"""An independent random generator for each part of the shop: changing one part does not change the others."""

import zlib

import numpy as np


def make_generator(seed: int, part: str, *numbers: int) -> np.random.Generator:
    """Return the generator of a part of the shop.

    Args:
        seed: the shop's seed.
        part: the part's name. Renaming a part changes the shop.
        *numbers: a member of the part, for example a product's row.
    """
    return np.random.default_rng([seed, zlib.crc32(part.encode()), *numbers])
