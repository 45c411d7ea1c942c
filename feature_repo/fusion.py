"""Vectors of a product from those of its image and its title: their weighted sum, in a space of the encoder's."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.features.similarity import normalize_rows

Vectors = NDArray[np.float32]

SAME_PRODUCT = (0.5, 0.5)
"""Weights of image and title in the fused vector that finds the same product."""
SIMILAR = (0.7, 0.3)
"""Weights of image and title in the vector that finds similar products: looks count more than words."""


@dataclass(frozen=True)
class Space:
    """An affine map into the space in which fused vectors are compared: x becomes (x - centre) @ axes."""

    centre: Vectors
    """Mean of the products' fused vectors, float32 [dim]."""
    axes: Vectors
    """The matrix that stretches directions, float32 [dim, dim]."""

    def transform(self, vectors: Vectors) -> Vectors:
        """Map vectors [n, dim] into the space and scale them to unit length, float32 [n, dim].

        NaN rows stay NaN, and a vector equal to `centre` becomes NaN.
        """
        return normalize_rows(np.asarray((vectors - self.centre) @ self.axes, np.float32))


def fuse(image: Vectors, text: Vectors, weights: tuple[float, float], space: Space | None = None) -> Vectors:
    """Return the weighted sums of image and text vectors, scaled to unit length: float32 [n, dim].

    Where one of the two is NaN, the other is used alone. A row is NaN where both are, or where the sum is 0.

    Args:
        image: unit vectors of the images [n, dim]; NaN for a missing one.
        text: unit vectors of the titles of the same products [n, dim]; NaN for a missing one.
        weights: weight of the image and of the text, such as SAME_PRODUCT or SIMILAR; only their ratio matters.
        space: maps the sum, already of unit length, into the space in which fused vectors are compared, and scales it
            to unit length again; None leaves it as it is.
    """
    parts = [np.nan_to_num(rows) * np.float32(weight) for rows, weight in zip((image, text), weights, strict=True)]
    fused = normalize_rows(parts[0] + parts[1])
    return fused if space is None else space.transform(fused)
