"""Fuse the vectors of an image and a title into one: their weighted sum, scaled to unit length.

The fused vector that finds the same product is then whitened over the shop's products (Su et al. 2021, "Whitening
Sentence Representations for Better Semantics and Faster Retrieval"). Products differ most in a few directions, such as
how much of the image is background; without whitening these outweigh the directions that tell products apart.

If clicks are given, preference whitening then stretches the directions in which the clicks of one user agree, such as
the age of a child or a favourite colour. It uses every click of the log in closed form, whereas a training objective
sees only some pairs of clicks of a session. How far a user's clicks agree in a direction is its intraclass correlation
r: the share of the variance that lies between users. The mean of n clicks of a user then has the reliability
n r / (1 + (n - 1) r) (Spearman 1910, Brown 1910).

`produce encoder` computes the space at the end of its training and stores it beside the weights:

OUT/fusion/space.safetensors   `centre` float32 [dim], `axes` float32 [dim, dim]
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from feature_repo.errors import CorruptDataError
from feature_repo.fusion import Space, Vectors

FILE = Path("fusion") / "space.safetensors"
SHRINKAGE = 0.3
"""Share of the mean variance added to the variance of each direction, so that directions with nothing but noise are not
amplified. Of 0.03, 0.1, 0.3 and 1, this value found the same product most often in the shop reserved for tuning."""
MIN_PRODUCTS_PER_DIMENSION = 2
"""With fewer products the spread cannot be estimated."""
CLICKS_PER_MEAN = 30
"""Clicks of a user that a mean is assumed to be taken over; n in the formula above."""
MIN_DIRECTION_WEIGHT = 0.3
"""Weight of a direction in which users do not agree at all; it may still tell products apart."""
MIN_CLICKS_PER_DIMENSION = 20
"""With fewer clicks the directions in which users agree cannot be estimated."""
MAX_CLICKS = 500_000
"""At most this many clicks are used: those of the users with the lowest codes."""


def fit_whitening(fused: Vectors) -> Space | None:
    """Return the space in which the given products vary nearly equally in every direction.

    None if there are fewer than MIN_PRODUCTS_PER_DIMENSION products per dimension, those with a vector counted, or all
    of them are equal.

    Args:
        fused: vectors of products [n, dim] from `fuse` without a space; NaN rows are ignored.
    """
    fused = fused[~np.isnan(fused[:, 0])]
    if len(fused) < MIN_PRODUCTS_PER_DIMENSION * fused.shape[1]:
        return None
    variances, directions = np.linalg.eigh(np.cov(fused, rowvar=False, dtype=np.float64))
    shrunk = variances + SHRINKAGE * variances.mean()
    if not shrunk.min() > 0:
        return None
    axes = (directions / np.sqrt(shrunk)) @ directions.T
    centre = fused.mean(axis=0, dtype=np.float64)
    return Space(centre.astype(np.float32), np.ascontiguousarray(axes, np.float32))


def fit_preference_whitening(
    space: Space, fused: Vectors, users: NDArray[np.int64], products: NDArray[np.int64]
) -> Space:
    """Return a space that weights each direction by how far the clicks of one user agree in it.

    Returns `space` itself if users who clicked at least two products have fewer than MIN_CLICKS_PER_DIMENSION clicks
    per dimension. Repeated clicks of a user on one product count once, and the order of clicks does not matter. Of more
    than MAX_CLICKS clicks, those of the users with the lowest codes are used.

    Args:
        space: from `fit_whitening`.
        fused: vectors of products [n, dim] from `fuse` without a space; NaN rows are ignored.
        users: integer code of each click's user [clicks].
        products: row of `fused` of each clicked product [clicks]; -1 for a product that is not there, whose clicks are
            ignored.
    """
    whitened = (fused - space.centre) @ space.axes
    usable = (products >= 0) & ~np.isnan(whitened[products, 0])
    # A product clicked twice would agree with itself in every direction.
    user, product = np.unique(np.stack([users[usable], products[usable]]), axis=1)[:, :MAX_CLICKS]
    _, starts, counts = np.unique(user, return_index=True, return_counts=True)
    if counts[counts > 1].sum() < MIN_CLICKS_PER_DIMENSION * fused.shape[1]:
        return space
    clicked = whitened[product].astype(np.float64)
    clicked -= clicked.mean(axis=0)
    squares, sums = clicked.T @ clicked, np.add.reduceat(clicked, starts)
    # The mean product of two different clicks of one user is the covariance between users.
    between = (sums.T @ sums - squares) / (counts * (counts - 1.0)).sum()
    variances, directions = np.linalg.eigh(between)
    total = np.einsum("ik,ij,jk->k", directions, squares / len(clicked), directions)
    correlation = np.clip(variances / np.maximum(total, np.finfo(np.float32).tiny), 0, 1)
    reliability = CLICKS_PER_MEAN * correlation / (1 + (CLICKS_PER_MEAN - 1) * correlation)
    stretch = (directions * np.sqrt(MIN_DIRECTION_WEIGHT + (1 - MIN_DIRECTION_WEIGHT) * reliability)) @ directions.T
    return Space(space.centre, np.ascontiguousarray(space.axes @ stretch, np.float32))


def fit_space(
    fused: Vectors, clicks: tuple[NDArray[np.int64], NDArray[np.int64]] | None
) -> tuple[Space | None, bool | None]:
    """Return the space of products, and whether clicks weight it; None for the latter without clicks.

    Args:
        fused: vectors of products [n, dim] from `fuse` without a space; NaN rows are ignored.
        clicks: user and product of each click, as in `fit_preference_whitening`; None without clicks.
    """
    space = whitened = fit_whitening(fused)
    if whitened and clicks:
        space = fit_preference_whitening(whitened, fused, *clicks)
    return space, space is not whitened if clicks else None


def describe_preferences(has_preferences: bool) -> str:
    """Return a line that says whether clicks weight the fused space."""
    if has_preferences:
        return "the fused space weights the directions in which the clicks of a user agree"
    return (
        "too few clicks or products to find directions in which the clicks of a user agree: the fused space is not "
        "weighted by clicks"
    )


def save_space(space: Space | None, folder: Path) -> None:
    """Write the space beside the weights of a checkpoint, and remove that of an earlier training.

    The earlier one is removed first, so a failure leaves none.

    Args:
        space: the space; None only removes.
        folder: the checkpoint's directory, which must exist.

    Raises:
        SafetensorError: the file cannot be written, as when the disk is full.
    """
    (folder / FILE).parent.mkdir(exist_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    if space is not None:
        save_file({"centre": space.centre, "axes": space.axes}, folder / FILE)


def read_space(folder: Path, dim: int) -> Space | None:
    """Return the space of a checkpoint; None if it has none, as one that was trained elsewhere.

    Args:
        folder: the checkpoint's directory.
        dim: width of the encoder's vectors.

    Raises:
        CorruptDataError: the file cannot be read, or has another width.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        arrays = load_file(folder / FILE)
        space = Space(arrays["centre"], arrays["axes"])
    except (SafetensorError, KeyError, OSError) as error:
        raise CorruptDataError(f"{folder / FILE}: cannot be read ({error}); restore the checkpoint") from error
    if space.centre.shape != (dim,) or space.axes.shape != (dim, dim):
        raise CorruptDataError(f"{folder / FILE}: not of the encoder's {dim} dimensions; restore the checkpoint")
    return space
