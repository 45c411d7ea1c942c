"""The paired bootstrap: one set of draws of users (and of users and products) for every ranker of the same rows.

Percentile intervals (Efron and Tibshirani 1993, chapter 13) of a mean over training seeds, or over permutations of a
placebo; users, products, seeds and permutations are all drawn with replacement.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from consumers.ranking import metrics
from consumers.ranking.training_set import TrainingSet

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """How often each user and each product of some rows was drawn, in each replicate; row 0 takes each once."""

    clicked: NDArray[np.integer]
    user: NDArray[np.int64]
    """Codes from 0 [rows]."""
    users: NDArray[np.int32]
    """[1 + replicates, users]."""
    product: NDArray[np.int64]
    products: NDArray[np.int32]
    """[1 + replicates, products]."""

    def once(self) -> "Draws":
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


def draws(data: TrainingSet, rows: NDArray[np.bool_], replicates: int, seed: int) -> Draws:
    """Draw for the rows [n] of a log."""
    _, user = np.unique(data.user[rows], return_inverse=True)
    _, product = np.unique(data.product[rows], return_inverse=True)
    return Draws(
        clicked=data.clicked[rows],
        user=user,
        users=metrics.resampled_users(int(user.max()) + 1, replicates, seed),
        product=product,
        products=metrics.resampled_users(int(product.max()) + 1, replicates, seed + 1),
    )


def mean_of(values: Floats, seed: int) -> Floats:
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


def interval(replicates: Floats) -> tuple[float, float]:
    """2.5th and 97.5th percentile of all columns but the first; NaN where the metric is undefined in any replicate."""
    low, high = np.percentile(replicates[1:], [2.5, 97.5])
    return float(low), float(high)
