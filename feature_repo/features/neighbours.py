"""Neighbour features: what the most similar products earned, as a prior for a product without impressions.

    neighbour_click_rate    click rate of the NEIGHBOUR_COUNT nearest products with impressions, smoothed: the click
                            rate of all products counts as if it had been observed on PRIOR_STRENGTH impressions
    neighbour_impressions   ln(1 + impressions of those products)
    neighbour_price         mean of ln(1 + price)
    neighbour_age           mean expected age stage
    neighbour_similarity    mean cosine: the confidence in the other features
    neighbours              number of products with impressions: NEIGHBOUR_COUNT or fewer

A product's own impressions and clicks never take part, nor does anything at or after the time of the row.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NEIGHBOUR_COUNT = 20
"""Nearest products that a product's features are computed from, at most."""
PRIOR_STRENGTH = 20.0
"""Impressions that the click rate of all other products counts as in `neighbour_click_rate`."""
NAMES = (
    "neighbour_click_rate",
    "neighbour_impressions",
    "neighbour_price",
    "neighbour_age",
    "neighbour_similarity",
    "neighbours",
)
"""All features, in the order of `compute_neighbour_features`."""


def compute_neighbour_features(
    similarity: Floats,
    impressions: Ints,
    clicks: Ints,
    price: Floats,
    age: Floats,
    others: tuple[Ints, Ints],
) -> dict[str, NDArray[np.float32]]:
    """Return the features of n products from their k nearest ones. The order of the neighbours does not matter.

    The k neighbours should be those that had impressions; one without impressions counts in the means too.

    Args:
        similarity: float32 [n, k], cosine to each neighbour; NaN where there are fewer neighbours. There the other
            arrays are ignored.
        impressions: int64 [n, k], impressions of each neighbour so far.
        clicks: int64 [n, k], clicks of each neighbour so far.
        price: float32 [n, k], price of each neighbour; NaN if unknown, negative counts as 0.
        age: float32 [n, k], expected age stage of each neighbour, as an index into CHILD_AGES; NaN if unknown.
        others: impressions [n] and clicks [n] so far of all products but the row's own. Without impressions their click
            rate counts as 0.

    Returns:
        float32 [n] per name, in the order of NAMES; NaN if there is no neighbour, except `neighbours`, which is 0. The
        mean price and age are taken of the neighbours whose value is known, and NaN if none is.
    """
    valid = ~np.isnan(similarity)
    count = valid.sum(axis=1)
    nan_if_none = np.where(count > 0, 1, np.nan)
    total_impressions, total_clicks = (np.where(valid, one, 0).sum(axis=1) for one in (impressions, clicks))
    prior = others[1] / np.maximum(others[0], 1)
    rate = (total_clicks + PRIOR_STRENGTH * prior) / (total_impressions + PRIOR_STRENGTH)
    values = (
        rate * nan_if_none,
        np.log1p(total_impressions) * nan_if_none,
        _mean(np.log1p(np.maximum(price, 0)), valid),
        _mean(age, valid),
        _mean(similarity, valid),
        count,
    )
    return {name: value.astype(np.float32) for name, value in zip(NAMES, values, strict=True)}


def _mean(values: Floats, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean of the valid values of each row [n, k]; NaN if there are none."""
    present = valid & ~np.isnan(values)
    count = present.sum(axis=1)
    return np.where(present, values, 0).sum(axis=1, dtype=np.float64) / np.where(count > 0, count, np.nan)
