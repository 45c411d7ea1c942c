"""Text to image recall: does a title find its product's picture among many?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from producers.encoders.encoder import Vectors


def text_to_image(
    text: Vectors, image: Vectors, designs: ArrayLike, *, depths: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """Share of titles with a picture of their own design among the k nearest by cosine, for each k of `depths`.

    It is the field's recall@k: one right picture among the k is enough, however many there are.

    Args:
        text: unit rows [n, d], one per product.
        image: unit rows [n, d] of the same products: the pool that is searched.
        designs: [n]; products of one design are right answers for each other, and each for itself.
        depths: values of k, at least 1; one beyond n searches the whole pool.

    Returns:
        k to a share in [0, 1]; NaN for every k where there is no product.

    Raises:
        ValueError: the rows do not belong together, or one is not finite: leave products without a picture or a
            title out, they can neither ask nor answer.
    """
    groups = np.asarray(designs)
    if text.shape != image.shape or len(groups) != len(text):
        raise ValueError(
            f"text {text.shape}, image {image.shape} and {len(groups)} designs are not of the same products"
        )
    if not (np.isfinite(text).all() and np.isfinite(image).all()):
        raise ValueError("a vector is not finite: leave products without a picture or a title out")
    if len(text) == 0:
        return dict.fromkeys(depths, float("nan"))
    cosine = text @ image.T
    own = np.where(groups[:, None] == groups[None, :], cosine, -np.inf).max(axis=1)
    # Strangers at the same cosine stand before the right picture: one constant vector for all finds nothing.
    before = ((cosine >= own[:, None]) & (groups[:, None] != groups[None, :])).sum(axis=1)
    return {depth: float((before < depth).mean()) for depth in depths}
