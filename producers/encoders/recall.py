"""Text-to-image recall: the share of titles whose own product's image is among the k nearest images."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from feature_repo.images.decoding import Source, UnusableImageError, open_image
from producers.encoders.encoder import Encoder, Vectors
from producers.encoders.image_loader import decode_images

CUTOFFS = (1, 5, 10)
"""The usual values of k."""


def text_to_image_recall(
    text: Vectors, image: Vectors, designs: ArrayLike, *, cutoffs: Sequence[int] = CUTOFFS
) -> dict[int, float]:
    """Return recall@k: the share of titles with an image of their own design among the k nearest by cosine.

    As is usual in the literature, one right image among the k is enough, however many there are. An image of another
    design with the same cosine ranks first.

    Args:
        text: unit rows [n, dim], one per product.
        image: unit rows [n, dim] of the same products; all of them are searched.
        designs: design id of each product [n]. An image is a right answer for every title of the same design, its own
            included.
        cutoffs: values of k, at least 1; a value beyond n searches all images.

    Returns:
        Each k, in the order given, with a share in [0, 1]; NaN for every k if there are no products.

    Raises:
        ValueError: the shapes do not match, or a vector is not finite. Leave out products without an image or a title.
    """
    groups = np.asarray(designs)
    if text.shape != image.shape or len(groups) != len(text):
        raise ValueError(
            f"text {text.shape}, image {image.shape} and {len(groups)} designs are not of the same products"
        )
    if not (np.isfinite(text).all() and np.isfinite(image).all()):
        raise ValueError("a vector is not finite: leave out products without an image or a title")
    return recall_from_scores(text @ image.T, groups, cutoffs=cutoffs)


def recall_from_scores(scores: NDArray, designs: ArrayLike, *, cutoffs: Sequence[int] = CUTOFFS) -> dict[int, float]:
    """Return recall@k from scores: the share of titles with an image of their own design among the k of highest score.

    An image of another design with the same score ranks first. So if all scores are equal, a title counts only when k
    is larger than the number of images of other designs.

    Args:
        scores: finite scores [n, n] of each title (rows) with each image (columns), the higher the more alike.
        designs: design id of each product [n]. An image is a right answer for every title of the same design, its own
            included.
        cutoffs: values of k, at least 1; a value beyond n searches all images.

    Returns:
        Each k, in the order given, with a share in [0, 1]; NaN for every k if there are no products.
    """
    groups = np.asarray(designs)
    if not len(groups):
        return dict.fromkeys(cutoffs, float("nan"))
    rank = rank_right_images(scores, groups)
    return {cutoff: float((rank < cutoff).mean()) for cutoff in cutoffs}


def rank_right_images(scores: NDArray, designs: NDArray) -> NDArray[np.int64]:
    """Return how many wrong images rank before the best right one, for each title, int64 [n], n at least 1.

    Args:
        scores: as in `recall_from_scores`. A wrong image of the same score ranks first, and so does one whose score is
            NaN.
        designs: design id of each product [n].
    """
    is_right = designs[:, None] == designs[None, :]
    best_right = np.where(is_right, scores, -np.inf).max(axis=1)
    # A wrong image of equal score ranks before the right one, so that constant vectors have recall 0.
    return (~(scores < best_right[:, None]) & ~is_right).sum(axis=1)


def encode_pairs(
    encoder: Encoder, titles: Sequence[str], images: Sequence[Source], pool: ProcessPoolExecutor
) -> tuple[Vectors, Vectors, NDArray[np.bool_]]:
    """Encode the images and titles of n products, and leave out those that do not have both vectors.

    Args:
        encoder: an image-text encoder.
        titles: title of each product [n]; may be empty.
        images: path or encoded bytes of each product's image [n]; unusable ones are left out.
        pool: processes that decode images, from `open_decoding_pool`.

    Returns:
        Image vectors and text vectors, both unit rows float32 [usable, dim], in the order of the products; and which
        products have both, bool [n].

    Raises:
        InvalidInputError: the encoder has no image tower.
    """
    if encoder.geometry is not None:
        decoded = decode_images(images, encoder.geometry, pool)
        image, usable = encoder.encode_pixels(decoded.pixels), decoded.usable
    else:
        opened = [_try_open(source) for source in images]
        image = encoder.encode_images([each for each in opened if each is not None])
        usable = np.array([each is not None for each in opened], dtype=bool)
    text = encoder.encode_texts([title for title, good in zip(titles, usable, strict=True) if good])
    has_both = np.isfinite(image).all(axis=1) & np.isfinite(text).all(axis=1)
    usable[usable] = has_both
    return image[has_both], text[has_both], usable


def _try_open(source: Source) -> Image.Image | None:
    """Return an image as RGB; None if it is unusable."""
    try:
        return open_image(source)
    except UnusableImageError:
        return None
