"""The space of fused vectors, drawn out along what users share: a direction counts for as much as it says of a user.

In some directions a user's clicks agree (the age of a child, a liked colour), in others no more than anybody's. How
much they do is a direction's intraclass correlation r, the share of the clicks' variance that lies between users; how
far the mean of n clicks of a user can be relied upon is then n r / (1 + (n - 1) r) (Spearman 1910, Brown 1910). Found
in closed form from all clicks of a log, where an objective of the training sees some pairs of clicks of a session.
"""

import numpy as np
from numpy.typing import NDArray

from producers.encoders.whitening import Space, Vectors

CLICKS = 30
"""How many clicks of a user are taken to stand behind a mean."""
LEAST = 0.3
"""What a direction counts for that says nothing of a user: it may still tell one product from another."""
CLICKS_A_DIMENSION = 20
"""Fewer than so many do not tell in which directions users agree."""
CLICKS_OF = 500_000
"""At most so many are looked at, those of the users with the lowest codes."""


def drawn_out(space: Space, fused: Vectors, users: NDArray[np.int64], products: NDArray[np.int64]) -> Space:
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
    user, product = np.unique(np.stack([users[known], products[known]]), axis=1)[:, :CLICKS_OF]
    _, starts, counts = np.unique(user, return_index=True, return_counts=True)
    if counts[counts > 1].sum() < CLICKS_A_DIMENSION * fused.shape[1]:
        return space
    clicked = moved[product].astype(np.float64)
    clicked -= clicked.mean(axis=0)
    squares, sums = clicked.T @ clicked, np.add.reduceat(clicked, starts)
    # The mean product of two different clicks of one user is what lies between users.
    between = (sums.T @ sums - squares) / (counts * (counts - 1.0)).sum()
    variances, directions = np.linalg.eigh(between)
    whole = np.einsum("ik,ij,jk->k", directions, squares / len(clicked), directions)
    correlation = np.clip(variances / np.maximum(whole, np.finfo(np.float32).tiny), 0, 1)
    reliance = CLICKS * correlation / (1 + (CLICKS - 1) * correlation)
    stretched = (directions * np.sqrt(LEAST + (1 - LEAST) * reliance)) @ directions.T
    return Space(space.centre, np.ascontiguousarray(space.axes @ stretched, np.float32))
