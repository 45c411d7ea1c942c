"""Text to image recall: does a title find its product's picture among many?"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from feature_repo.images import UnusableImageError, open_image
from producers.encoders.encoder import Encoder, Vectors
from producers.encoders.image_loader import Source, decode_images

CUTOFFS = (1, 5, 10)
"""Of the field."""


def text_to_image_recall(
    text: Vectors, image: Vectors, designs: ArrayLike, *, depths: Sequence[int] = CUTOFFS
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
    return recall_from_scores(text @ image.T, groups, depths=depths)


def recall_from_scores(scores: NDArray, designs: ArrayLike, *, depths: Sequence[int] = CUTOFFS) -> dict[int, float]:
    """As `text_to_image`, from any scores [titles, pictures] of n products, highest first; every score is finite."""
    groups = np.asarray(designs)
    if not len(groups):
        return dict.fromkeys(depths, float("nan"))
    own = np.where(groups[:, None] == groups[None, :], scores, -np.inf).max(axis=1)
    # Strangers at the same score stand before the right picture: one constant vector for all finds nothing.
    before = ((scores >= own[:, None]) & (groups[:, None] != groups[None, :])).sum(axis=1)
    return {depth: float((before < depth).mean()) for depth in depths}


def encode_pairs(
    encoder: Encoder, titles: Sequence[str], pictures: Sequence[Source], pool: ProcessPoolExecutor
) -> tuple[Vectors, Vectors, NDArray[np.bool_]]:
    """Vectors of pictures and titles [usable, d], and which products have both [n].

    Args:
        titles: [n]; pictures: path or bytes of each title's picture [n].
        pool: decodes the pictures.
    """
    if encoder.geometry is not None:
        decoded = decode_images(pictures, encoder.geometry, pool)
        image, usable = encoder.encode_pixels(decoded.pixels), decoded.usable
    else:
        opened = [_opened(picture) for picture in pictures]
        image = encoder.encode_images([picture for picture in opened if picture is not None])
        usable = np.array([picture is not None for picture in opened], dtype=bool)
    text = encoder.encode_texts([title for title, good in zip(titles, usable, strict=True) if good])
    whole = np.isfinite(image).all(axis=1) & np.isfinite(text).all(axis=1)
    usable[usable] = whole
    return image[whole], text[whole], usable


def _opened(source: Source) -> Image.Image | None:
    try:
        return open_image(source)
    except UnusableImageError:
        return None
