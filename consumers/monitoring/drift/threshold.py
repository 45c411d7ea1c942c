"""How far apart two sets of products would be by chance.

If nothing has changed, it does not matter which products of one stratum (same category, both new or both not) came
now and which came before: every exchange of the labels within strata is as likely as what was seen. So all statistics
are computed for many such exchanges, each is measured in standard deviations of its own values, and what was seen is
held against the largest of all statistics in each exchange (Westfall and Young 1993, Resampling-Based Multiple
Testing, the single-step max-T procedure). One alarm in `once_in` checks of a shop in which nothing changes is then
false, however many statistics there are, however large the shop and however many of its products are new.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """K statistics against what chance does."""

    expected: Floats
    """[K], the mean of the exchanges."""
    threshold: Floats
    """[K], above which a statistic is an alarm; infinite where it is the same in every exchange."""
    p_value: float
    """The share of exchanges, what was seen among them, whose largest statistic is as large as that seen."""


def labellings(label: NDArray[np.bool_], stratum: NDArray[np.int64], draws: int, seed: int) -> NDArray[np.bool_]:
    """[1 + draws, n]: the labels as they are, then exchanged at random within each stratum."""
    chance = np.random.default_rng(seed)
    found = np.tile(label, (1 + draws, 1))
    for one in np.unique(stratum):
        place = np.flatnonzero(stratum == one)
        if 0 < label[place].sum() < len(place):
            order = chance.random((draws, len(place))).argsort(axis=1)
            found[1:, place] = label[place][order]
    return found


def draws_for(once_in: int) -> int:
    """How many exchanges tell one in `once_in` from chance: twice as many, for the very largest is a shaky bound."""
    return 2 * once_in - 1


def judge(statistics: Floats, once_in: int) -> Judged:
    """Thresholds of K statistics.

    Args:
        statistics: [1 + draws, K], of what was seen, then of the exchanges; larger is further apart.
        once_in: a false alarm in so many checks, all statistics together.

    Raises:
        UsageError: there are too few draws for that.
    """
    draws = len(statistics) - 1
    if (draws + 1) < once_in:
        raise UsageError(f"{draws} permutations cannot tell one in {once_in:,}; draw {draws_for(once_in):,} or more")
    mean, spread = statistics.mean(axis=0), statistics.std(axis=0)
    varies = spread > 1e-12
    standard = np.where(varies, (statistics - mean) / np.where(varies, spread, 1), 0.0)
    largest = standard.max(axis=1)
    allowed = (draws + 1) // once_in  # so many of all, what was seen among them, may lie at the bound or above
    bound = np.sort(largest[1:])[draws - allowed]
    return Judged(
        expected=statistics[1:].mean(axis=0),
        threshold=np.where(varies, mean + bound * spread, np.inf),
        p_value=float((largest >= largest[0]).mean()),
    )
