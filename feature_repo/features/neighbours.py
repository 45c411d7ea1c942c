"""What the products nearest to one earned: the prior of a product that nobody has been shown yet.

    neighbour_click_rate    of the K nearest with a history, drawn towards everyone's as if seen STRENGTH times
    neighbour_impressions   ln(1 + how often those were shown)
    neighbour_price         mean of ln(1 + price)
    neighbour_age           mean expected age stage
    neighbour_similarity    mean cosine: how much to believe the rest
    neighbours              how many had a history: K, or fewer

A product's own impressions and clicks are in none of it, nor anything at or after the moment asked about.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NEIGHBOUR_COUNT = 20
PRIOR_STRENGTH = 20.0
NAMES = (
    "neighbour_click_rate",
    "neighbour_impressions",
    "neighbour_price",
    "neighbour_age",
    "neighbour_similarity",
    "neighbours",
)


def compute_neighbour_features(
    similarity: Floats,
    shown: Ints,
    clicks: Ints,
    price: Floats,
    age: Floats,
    others: tuple[Ints, Ints],
) -> dict[str, NDArray[np.float32]]:
    """The features of n products from their nearest ones.

    Args:
        similarity: float32 [n, k], NaN where there are fewer neighbours.
        shown, clicks: int64 [n, k], of each neighbour so far.
        price: float32 [n, k], NaN where it is not known.
        age: float32 [n, k], expected stage, likewise.
        others: impressions and clicks of all products but the row's own so far [n].

    Returns:
        float32 [n] for each of NAMES; NaN where there is no neighbour, but `neighbours` is 0 then.
    """
    known = ~np.isnan(similarity)
    count = known.sum(axis=1)
    some = np.where(count > 0, 1, np.nan)
    total_shown, total_clicks = (np.where(known, one, 0).sum(axis=1) for one in (shown, clicks))
    prior = others[1] / np.maximum(others[0], 1)
    rate = (total_clicks + PRIOR_STRENGTH * prior) / (total_shown + PRIOR_STRENGTH)
    values = (
        rate * some,
        np.log1p(total_shown) * some,
        _mean(np.log1p(np.maximum(price, 0)), known),
        _mean(age, known),
        _mean(similarity, known),
        count,
    )
    return {name: value.astype(np.float32) for name, value in zip(NAMES, values, strict=True)}


def _mean(values: Floats, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of what is known in each row [n, k]; NaN where nothing is."""
    there = known & ~np.isnan(values)
    count = there.sum(axis=1)
    return np.where(there, values, 0).sum(axis=1, dtype=np.float64) / np.where(count > 0, count, np.nan)
