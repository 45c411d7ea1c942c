"""Confidence intervals of metrics and of their differences.

The paired bootstrap draws users (and users and products) once and applies the draw to every ranker of the same rows.
Intervals are percentile intervals (Efron and Tibshirani 1993, chapter 13) of a mean over training seeds, or over
permutations of the placebo; users, products, seeds and permutations are all drawn with replacement.

DeLong's interval is a secondary figure. It treats rows as independent.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from consumers.ranking import metrics
from consumers.ranking.training_set import RankingTrainingSet

Floats = NDArray[np.float64]
DELONG_CAVEAT = "DeLong assumes independent rows; impressions of one user or product are not, so it is too narrow"


@dataclass(frozen=True)
class BootstrapWeights:
    """How often each user and each product of some rows was drawn in each replicate of the bootstrap.

    Replicate 0 has each of them once, and so gives the value of a metric itself.
    """

    clicked: NDArray[np.integer]
    """0 or 1 [rows]."""
    user: NDArray[np.int64]
    """User codes from 0 [rows]."""
    users: NDArray[np.int32]
    """Number of times that each user was drawn [1 + replicates, users]."""
    product: NDArray[np.int64]
    """Product codes from 0 [rows]."""
    products: NDArray[np.int32]
    """Number of times that each product was drawn [1 + replicates, products]."""

    def without_replicates(self) -> "BootstrapWeights":
        """Return the same rows with replicate 0 alone, for values without an interval. This object is not changed."""
        return replace(self, users=self.users[:1], products=self.products[:1])

    def compute_metric(self, metric: str, scores: Floats, rows: NDArray[np.bool_] | None = None) -> Floats:
        """Compute a metric of several score vectors with users drawn.

        Args:
            metric: a key of `metrics.METRICS`.
            scores: click probabilities [rankers, rows]; at least one ranker.
            rows: mask of the rows that count [rows]; None takes all.

        Returns:
            float64 [rankers, 1 + replicates]; NaN where the metric is undefined.

        Raises:
            KeyError: there is no such metric.
        """
        mask = slice(None) if rows is None else rows
        function = metrics.METRICS[metric]
        return np.stack([function(each[mask], self.clicked[mask], self.user[mask], self.users) for each in scores])

    def compute_two_way_auc(self, scores: Floats, rows: NDArray[np.bool_] | None = None) -> Floats:
        """Compute AUC of several score vectors with users and products drawn, independently of each other.

        Args:
            scores: click probabilities [rankers, rows]; at least one ranker.
            rows: mask of the rows that count [rows]; None takes all.

        Returns:
            float64 [rankers, 1 + replicates]; NaN where there is no clicked or no unclicked row.
        """
        mask = slice(None) if rows is None else rows
        weights = (self.clicked[mask], self.user[mask], self.users, self.product[mask], self.products)
        return np.stack([metrics.auc_two_way(each[mask], *weights) for each in scores])


def draw_weights(data: RankingTrainingSet, rows: NDArray[np.bool_], replicates: int, seed: int) -> BootstrapWeights:
    """Draw users and products for some rows of a log, with replacement.

    Args:
        data: the joined log.
        rows: mask of the rows [n]; at least one is set.
        replicates: number of draws beside replicate 0.
        seed: users are drawn with this seed, products with the next.

    Returns:
        The draws for these rows, in the log's order. Only their users and products are drawn. These get new codes from
        0, in the order of their codes in the log. The same arguments give the same draws.
    """
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
    """Average over rankers: over all of them in column 0, over rankers drawn with replacement in the others.

    To compare rankers that share training seeds, pass their differences, so that pairs are drawn.

    Args:
        values: [rankers, 1 + replicates]; a ranker is one training seed or permutation.
        seed: seed of the draw of rankers.

    Returns:
        float64 [1 + replicates]; NaN where a drawn value is NaN.
    """
    rankers, columns = values.shape
    drawn = np.random.default_rng(seed).integers(0, rankers, size=(rankers, columns))
    drawn[:, 0] = np.arange(rankers)
    return np.asarray(np.take_along_axis(values, drawn, axis=0).mean(axis=0))


def percentile_interval(replicates: Floats) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of all entries but the first. Both are NaN if any of these is NaN.

    Between two entries, a percentile is interpolated linearly.

    Args:
        replicates: the value itself, then its bootstrap replicates, at least one [1 + replicates].
    """
    low, high = np.percentile(replicates[1:], [2.5, 97.5])
    return float(low), float(high)


class DelongInterval(NamedTuple):
    """A difference of two AUCs and its 95% interval under independent rows."""

    lift: float
    """The difference; NaN if there are too few rows."""
    ci95: tuple[float, float]
    """Lower and upper bound of the difference; both NaN if there are too few rows."""


def delong_interval(
    base: NDArray[np.floating], with_features: NDArray[np.floating], clicked: NDArray[np.integer]
) -> DelongInterval:
    """Return the AUC difference `with_features` - `base` of two rankers that scored the same rows, with its interval.

    DeLong, DeLong and Clarke-Pearson 1988, by mid-ranks (Sun and Xu 2014). All values are NaN if there are fewer than
    two clicked or two unclicked rows.

    Args:
        base: scores of one ranker [n]; only their order counts.
        with_features: scores of the other ranker for the same rows [n].
        clicked: 0 or 1 [n].
    """
    yes, no = clicked == 1, clicked == 0
    if min(yes.sum(), no.sum()) < 2:
        return DelongInterval(float("nan"), (float("nan"), float("nan")))
    click_differences, other_differences = (
        after - before for before, after in zip(_placements(base, yes), _placements(with_features, yes), strict=True)
    )
    lift = float(click_differences.mean())
    error = np.sqrt(click_differences.var(ddof=1) / yes.sum() + other_differences.var(ddof=1) / no.sum())
    half = float(norm.ppf(0.975) * error)
    return DelongInterval(lift, (lift - half, lift + half))


def _placements(
    scores: NDArray[np.floating], clicked: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each clicked row the share of unclicked rows below it; for each unclicked row the share of clicked above it.

    Ties count half. The mean of either is the AUC.
    """
    ranks = rankdata(scores)
    click_ranks, other_ranks = ranks[clicked], ranks[~clicked]
    below = (click_ranks - rankdata(scores[clicked])) / len(other_ranks)
    above = 1 - (other_ranks - rankdata(scores[~clicked])) / len(click_ranks)
    return below, above
