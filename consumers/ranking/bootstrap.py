"""The paired bootstrap: one set of draws of users (and of users and products) for every ranker of the same rows.

Percentile intervals (Efron and Tibshirani 1993, chapter 13) of a mean over training seeds, or over permutations of a
placebo; users, products, seeds and permutations are all drawn with replacement.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from consumers.ranking import metrics
from consumers.ranking.training_set import TrainingSet

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BootstrapWeights:
    """How often each user and each product of some rows was drawn, in each replicate; row 0 takes each once."""

    clicked: NDArray[np.integer]
    user: NDArray[np.int64]
    """Codes from 0 [rows]."""
    users: NDArray[np.int32]
    """[1 + replicates, users]."""
    product: NDArray[np.int64]
    products: NDArray[np.int32]
    """[1 + replicates, products]."""

    def once(self) -> "BootstrapWeights":
        """Every user and product once: for values without an interval."""
        return replace(self, users=self.users[:1], products=self.products[:1])

    def measure(self, metric: str, scores: Floats, rows: NDArray[np.bool_] | None = None) -> Floats:
        """A metric of each of several score vectors, users drawn [rankers, 1 + replicates].

        Args:
            metric: of metrics.METRICS.
            scores: [rankers, rows].
            rows: which of them count; None takes all.
        """
        part = slice(None) if rows is None else rows
        by = metrics.METRICS[metric]
        return np.stack([by(one[part], self.clicked[part], self.user[part], self.users) for one in scores])

    def two_way(self, scores: Floats, rows: NDArray[np.bool_] | None = None) -> Floats:
        """AUC of each of several score vectors, users and products drawn [rankers, 1 + replicates]."""
        part = slice(None) if rows is None else rows
        drawn = (self.clicked[part], self.user[part], self.users, self.product[part], self.products)
        return np.stack([metrics.auc_two_way(one[part], *drawn) for one in scores])


def draw_weights(data: TrainingSet, rows: NDArray[np.bool_], replicates: int, seed: int) -> BootstrapWeights:
    """Draw for the rows [n] of a log."""
    _, user = np.unique(data.user[rows], return_inverse=True)
    _, product = np.unique(data.product[rows], return_inverse=True)
    return BootstrapWeights(
        clicked=data.clicked[rows],
        user=user,
        users=metrics.draw_counts(int(user.max()) + 1, replicates, seed),
        product=product,
        products=metrics.draw_counts(int(product.max()) + 1, replicates, seed + 1),
    )


def average_rankers(values: Floats, seed: int) -> Floats:
    """Mean over rankers [1 + replicates]: of all in column 0, of rankers drawn with replacement in the others.

    Differences of rankers that share a seed go in as differences, so that they are drawn as pairs.

    Args:
        values: [rankers, 1 + replicates].
        seed: of the draw.
    """
    rankers, columns = values.shape
    drawn = np.random.default_rng(seed).integers(0, rankers, size=(rankers, columns))
    drawn[:, 0] = np.arange(rankers)
    return np.asarray(np.take_along_axis(values, drawn, axis=0).mean(axis=0))


def percentile_interval(replicates: Floats) -> tuple[float, float]:
    """2.5th and 97.5th percentile of all columns but the first; NaN where the metric is undefined in any replicate."""
    low, high = np.percentile(replicates[1:], [2.5, 97.5])
    return float(low), float(high)


DELONG_CAVEAT = "DeLong takes rows for independent; impressions of one user or product are not, so it is too narrow"


class DelongInterval(NamedTuple):
    """`with` - `base` in AUC, and its 95% interval under independent rows."""

    lift: float
    ci95: tuple[float, float]


def delong_interval(
    base: NDArray[np.floating], with_features: NDArray[np.floating], clicked: NDArray[np.integer]
) -> DelongInterval:
    """The interval of the AUC difference of two rankers that scored the same rows [n] each.

    NaN where there are fewer than two clicked or two other rows.
    """
    yes, no = clicked == 1, clicked == 0
    if min(yes.sum(), no.sum()) < 2:
        return DelongInterval(float("nan"), (float("nan"), float("nan")))
    on_clicks, on_others = (
        after - before for before, after in zip(_placements(base, yes), _placements(with_features, yes), strict=True)
    )
    lift = float(on_clicks.mean())
    error = np.sqrt(on_clicks.var(ddof=1) / yes.sum() + on_others.var(ddof=1) / no.sum())
    half = float(norm.ppf(0.975) * error)
    return DelongInterval(lift, (lift - half, lift + half))


def _placements(
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
