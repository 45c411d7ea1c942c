"""DeLong's interval of a difference of two AUCs: a secondary figure, for it takes rows for independent.

DeLong, DeLong and Clarke-Pearson 1988, by mid-ranks (Sun and Xu 2014). Impressions of one user, of one product or of
one page view are anything but independent, so this interval is too narrow on a log; the bootstrap's is the one to read.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

CAVEAT = "DeLong takes rows for independent; impressions of one user or product are not, so it is too narrow"


class Difference(NamedTuple):
    """`with` - `base` in AUC, and its 95% interval under independent rows."""

    lift: float
    ci95: tuple[float, float]


def difference(
    base: NDArray[np.floating], with_features: NDArray[np.floating], clicked: NDArray[np.integer]
) -> Difference:
    """The interval of the AUC difference of two rankers that scored the same rows [n] each.

    NaN where there are fewer than two clicked or two other rows.
    """
    yes, no = clicked == 1, clicked == 0
    if min(yes.sum(), no.sum()) < 2:
        return Difference(float("nan"), (float("nan"), float("nan")))
    on_clicks, on_others = (
        after - before for before, after in zip(placements(base, yes), placements(with_features, yes), strict=True)
    )
    lift = float(on_clicks.mean())
    error = np.sqrt(on_clicks.var(ddof=1) / yes.sum() + on_others.var(ddof=1) / no.sum())
    half = float(norm.ppf(0.975) * error)
    return Difference(lift, (lift - half, lift + half))


def placements(
    scores: NDArray[np.floating], clicked: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each clicked row the share of the others below it, and for each other row the share of the clicked above it.

    Ties count half; the mean of either is the AUC.
    """
    ranks = rankdata(scores)
    of_clicks, of_others = ranks[clicked], ranks[~clicked]
    below = (of_clicks - rankdata(scores[clicked])) / len(of_others)
    above = 1 - (of_others - rankdata(scores[~clicked])) / len(of_clicks)
    return below, above
