"""A picture and a title as one vector: their weighted sum, of unit length.

What says "the same product" is then whitened as the shop's own products are spread (Su et al. 2021, "Space Sentence
Representations for Better Semantics and Faster Retrieval"): the few directions in which all products differ most, such
as how much of a picture is background, would else outweigh those that tell one product from another. Where clicks are
given, directions in which a user's clicks agree then count for more (taste.py). `produce encoder` finds that space at
the end of its training and keeps it beside the weights:

OUT/fusion/space.safetensors   `centre` float32 [d], `axes` float32 [d, d]
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from feature_repo.errors import VitrineError
from feature_repo.features.similarity import normalize_rows

Vectors = NDArray[np.float32]

SAME_PRODUCT = (0.5, 0.5)
"""Weights of image and text in the fused vector: what says "the same product"."""
SIMILAR = (0.7, 0.3)
"""Weights of image and text for "one like it": looks count more than words."""
FILE = Path("fusion") / "space.safetensors"
SHRINKAGE = 0.3
"""Share of the mean variance that is added to every direction's: those in which nothing varies but noise are not to be
blown up. Of 0.03, 0.1, 0.3 and 1 it is the one that found most of the same product, on the shop kept for tuning."""
MIN_PRODUCTS_PER_DIMENSION = 2
"""Fewer than so many do not tell how products are spread."""

CLICKS_PER_MEAN = 30
"""How many clicks of a user are taken to stand behind a mean."""
MIN_DIRECTION_WEIGHT = 0.3
"""What a direction counts for that says nothing of a user: it may still tell one product from another."""
MIN_CLICKS_PER_DIMENSION = 20
"""Fewer than so many do not tell in which directions users agree."""
MAX_CLICKS = 500_000
"""At most so many are looked at, those of the users with the lowest codes."""


@dataclass(frozen=True)
class Space:
    """Where fused vectors are compared: moved and stretched from how the towers give them."""

    centre: Vectors
    """[d]."""
    axes: Vectors
    """[d, d]."""

    def of(self, vectors: Vectors) -> Vectors:
        """Unit rows of vectors [n, d]; NaN rows stay so."""
        return normalize_rows(np.asarray((vectors - self.centre) @ self.axes, np.float32))


def fit_whitening(fused: Vectors) -> Space | None:
    """In which products vary alike in every direction; None where they are too few to tell a spread.

    Args:
        fused: of products [n, d], as `fuse` gives them without a space; NaN rows are left out.
    """
    fused = fused[~np.isnan(fused[:, 0])]
    if len(fused) < MIN_PRODUCTS_PER_DIMENSION * fused.shape[1]:
        return None
    variances, directions = np.linalg.eigh(np.cov(fused, rowvar=False, dtype=np.float64))
    kept = variances + SHRINKAGE * variances.mean()
    if not kept.min() > 0:
        return None
    axes = (directions / np.sqrt(kept)) @ directions.T
    centre = fused.mean(axis=0, dtype=np.float64)
    return Space(centre.astype(np.float32), np.ascontiguousarray(axes, np.float32))


def fit_preference_whitening(
    space: Space, fused: Vectors, users: NDArray[np.int64], products: NDArray[np.int64]
) -> Space:
    """A space in which what a user's clicks have in common counts for more; the same where clicks are too few to tell.

    Args:
        space: of d dimensions.
        fused: of products [n, d], as `fuse` gives them without a space.
        users: code of each click's user [m].
        products: the row of `fused` that was clicked [m], -1 for none.
    """
    moved = (fused - space.centre) @ space.axes
    known = (products >= 0) & ~np.isnan(moved[products, 0])
    # The same product twice agrees with itself in every direction.
    user, product = np.unique(np.stack([users[known], products[known]]), axis=1)[:, :MAX_CLICKS]
    _, starts, counts = np.unique(user, return_index=True, return_counts=True)
    if counts[counts > 1].sum() < MIN_CLICKS_PER_DIMENSION * fused.shape[1]:
        return space
    clicked = moved[product].astype(np.float64)
    clicked -= clicked.mean(axis=0)
    squares, sums = clicked.T @ clicked, np.add.reduceat(clicked, starts)
    # The mean product of two different clicks of one user is what lies between users.
    between = (sums.T @ sums - squares) / (counts * (counts - 1.0)).sum()
    variances, directions = np.linalg.eigh(between)
    whole = np.einsum("ik,ij,jk->k", directions, squares / len(clicked), directions)
    correlation = np.clip(variances / np.maximum(whole, np.finfo(np.float32).tiny), 0, 1)
    reliance = CLICKS_PER_MEAN * correlation / (1 + (CLICKS_PER_MEAN - 1) * correlation)
    stretched = (directions * np.sqrt(MIN_DIRECTION_WEIGHT + (1 - MIN_DIRECTION_WEIGHT) * reliance)) @ directions.T
    return Space(space.centre, np.ascontiguousarray(space.axes @ stretched, np.float32))


def save_space(space: Space | None, folder: Path) -> None:
    """Beside the weights of a checkpoint, in the place of any that an earlier training left there."""
    (folder / FILE).parent.mkdir(exist_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    if space is not None:
        save_file({"centre": space.centre, "axes": space.axes}, folder / FILE)


def read_space(folder: Path, dim: int) -> Space | None:
    """Of a checkpoint whose rows are `dim` wide; None where it keeps none, as those that were not trained here.

    Raises:
        VitrineError: the file cannot be read, or is not of that width.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        found = load_file(folder / FILE)
        space = Space(found["centre"], found["axes"])
    except (SafetensorError, KeyError, OSError) as error:
        raise VitrineError(f"{folder / FILE}: cannot be read ({error}); restore the checkpoint") from error
    if space.centre.shape != (dim,) or space.axes.shape != (dim, dim):
        raise VitrineError(f"{folder / FILE}: not of the encoder's {dim} dimensions; restore the checkpoint")
    return space


def fuse(image: Vectors, text: Vectors, weights: tuple[float, float], space: Space | None = None) -> Vectors:
    """Unit rows of the weighted sum [n, d]; where one modality is missing (NaN) the other stands alone.

    A pair that cancels out, or a row with neither, is NaN.
    """
    parts = [np.nan_to_num(rows) * np.float32(weight) for rows, weight in zip((image, text), weights, strict=True)]
    fused = normalize_rows(parts[0] + parts[1])
    return fused if space is None else space.of(fused)
