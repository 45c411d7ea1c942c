"""Describes the texture of pictures, such as stripes and dots, which vectors of small image towers lack.

A picture is compared with a dictionary of small grey patches (Coates, Lee and Ng 2011): each patch of the picture is
described by how much closer than their mean distance each patch of the dictionary is, and the picture by mean and
maximum over its patches. The dictionary is learned from the shop's own pictures by k-means.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_repo.cores import count_cores
from feature_repo.images.decoding import Source, UnusableImageError, open_image
from feature_repo.location import REQUESTS, BucketObject

Floats = NDArray[np.float32]

SIDE = 96
"""Height and width in pixels to which pictures are resized."""
PATCH = 8
"""Height and width of a patch."""
STRIDE = 2
"""Pixels from one patch of a picture to the next."""
ENTRIES = 400
"""Patches of a dictionary."""
TRAINING_PICTURES = 2_000
"""About how many pictures a dictionary is learned from."""
TRAINING_PATCHES = 40_000
"""About how many patches of them."""
NOISE = 10.0
"""Added to the variance of a patch, in squared grey levels, so that flat patches are not enlarged to noise."""
DAMPING = 0.05
"""Added to each eigenvalue of the patches' covariance before whitening."""


@dataclass(frozen=True)
class TextureDictionary:
    """Whitening and patches that pictures are compared with."""

    mean: Floats
    """[PATCH * PATCH], mean of the normalized patches."""
    whitening: Floats
    """[PATCH * PATCH, PATCH * PATCH]"""
    entries: Floats
    """[entries, PATCH * PATCH], whitened patches."""

    @property
    def width(self) -> int:
        """Number of values that describe a picture."""
        return 2 * len(self.entries)

    def describe(self, picture: Floats) -> Floats:
        """Return the description of a grey picture [SIDE, SIDE]: float32 [width], at least 0."""
        patches = (_normalize(_cut_patches(picture)) - self.mean) @ self.whitening
        squares = (patches**2).sum(1, keepdims=True) - 2 * patches @ self.entries.T + (self.entries**2).sum(1)
        distance = np.sqrt(np.maximum(squares, 0, out=squares), out=squares)
        closeness = np.maximum(distance.mean(1, keepdims=True) - distance, 0)
        return np.sqrt(np.concatenate([closeness.mean(0), closeness.max(0)])).astype(np.float32)


def learn_dictionary(pictures: Sequence[Floats], seed: int = 0) -> TextureDictionary:
    """Return a dictionary for some grey pictures [SIDE, SIDE], at least one.

    It has ENTRIES patches; fewer if the pictures have fewer than 40 patches for each.
    """
    rng = np.random.default_rng(seed)
    cut = [_cut_patches(picture) for picture in pictures]
    each = max(1, TRAINING_PATCHES // len(cut))
    patches = _normalize(np.concatenate([one[rng.integers(0, len(one), each)] for one in cut]))
    mean = patches.mean(0)
    values, axes = np.linalg.eigh(np.cov(patches.T))
    whitening = (axes / np.sqrt(np.maximum(values, 0) + DAMPING)) @ axes.T
    whitened = np.ascontiguousarray((patches - mean) @ whitening, np.float32)
    k_means = faiss.Kmeans(whitened.shape[1], max(1, min(ENTRIES, len(whitened) // 40)), niter=10, seed=1)
    k_means.train(whitened)
    entries = np.asarray(k_means.centroids, np.float32)
    return TextureDictionary(mean.astype(np.float32), whitening.astype(np.float32), entries)


def describe_pictures(sources: Sequence[Source | None], dictionary: TextureDictionary) -> Iterator[NDArray[np.float16]]:
    """Yield the description of each picture, float16 [width], in their order; NaN where there is none to be read."""

    def describe(source: Source | None) -> NDArray[np.float16]:
        picture = open_grey(source)
        if picture is None:
            return np.full(dictionary.width, np.nan, np.float16)
        return dictionary.describe(picture).astype(np.float16)

    is_remote = any(isinstance(source, BucketObject) for source in sources)
    with ThreadPoolExecutor(REQUESTS if is_remote else count_cores()) as pool:  # a request takes long, and no core
        yield from pool.map(describe, sources)


def open_grey(source: Source | None) -> Floats | None:
    """Return a picture in grey levels 0 to 255, float32 [SIDE, SIDE]; None if there is none, or it cannot be read."""
    if source is None:
        return None
    try:
        image = open_image(source, side=SIDE).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    except UnusableImageError:
        return None  # `produce embeddings` has reported it
    return np.asarray(image, np.float32)


def _cut_patches(picture: Floats) -> Floats:
    """Return the patches of a picture, float32 [patches, PATCH * PATCH]."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, (PATCH, PATCH))[::STRIDE, ::STRIDE]
    return windows.reshape(-1, PATCH * PATCH)


def _normalize(patches: Floats) -> Floats:
    """Return patches with mean 0 and about variance 1."""
    centred = patches - patches.mean(1, keepdims=True)
    return centred / np.sqrt(centred.var(1, keepdims=True) + NOISE)
