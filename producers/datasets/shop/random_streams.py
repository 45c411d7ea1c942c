"""One stream of random numbers per part of the shop, so that a change in one part leaves the others as they were."""

import zlib

import numpy as np


def make_generator(seed: int, part: str, *numbers: int) -> np.random.Generator:
    """The stream of `part` (and, within it, of `numbers`, for instance a product's row) in the shop of `seed`."""
    return np.random.default_rng([seed, zlib.crc32(part.encode()), *numbers])
