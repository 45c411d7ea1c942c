"""A user's interest: means of clicked vectors and tags that decay over time, and the last clicks.

A click's weight halves every HALF_LIFE_DAYS. The distribution of the child's age shifts with the time since the click.
A row holds everything that the next click needs. So clicks that arrive one at a time and whole histories at once give
the same rows, bit for bit: both use the same arithmetic step by step, and no step mixes users.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feature_repo.features.ages import apply_age_shift, compute_age_shift
from feature_repo.schema import CHILD_AGE_MONTHS, CHILD_GENDERS, HISTORY_LENGTH

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

HALF_LIFE_DAYS = 14.0
"""Time after which a click weighs half."""
HALF_LIFE_US = HALF_LIFE_DAYS * 86_400_000_000
"""The same in microseconds."""


@dataclass(frozen=True)
class InterestMeans:
    """Recency-weighted means of what n users clicked, each as of the user's last click.

    The last click weighs 1, one HALF_LIFE_DAYS older a half. A weight here is the sum of the weights of the clicks that
    the mean is taken of: the confidence in the mean; 0 if there is none.
    """

    vector: Floats
    """float32 [n, d], mean of the clicked vectors; NaN rows if no click had a vector."""
    vector_weight: Floats
    """float32 [n], sum of the weights of the clicks with a vector."""
    ages: Floats
    """float32 [n, stages], distribution of the child's age as of the last click; NaN rows if no click had one."""
    ages_weight: Floats
    """float32 [n], sum of the weights of the clicks with a distribution of ages."""
    genders: Floats
    """float32 [n, genders], mean distribution of the clicked genders; NaN rows if no click had one."""
    genders_weight: Floats
    """float32 [n], sum of the weights of the clicks with a distribution of genders."""
    time: Ints
    """int64 [n], time of the last click, microseconds since 1970 UTC; 0 without clicks."""

    @staticmethod
    def empty(users: int, width: int, stages: int) -> "InterestMeans":
        """Return the means of users without clicks: NaN with weight 0 at time 0.

        Args:
            users: number of users, n; may be 0.
            width: length of the vectors, d.
            stages: number of child age stages.
        """

        def nan(*shape: int) -> Floats:
            return np.full((users, *shape), np.nan, np.float32)

        def zero() -> Floats:
            return np.zeros(users, np.float32)

        times = np.zeros(users, np.int64)
        return InterestMeans(nan(width), zero(), nan(stages), zero(), nan(len(CHILD_GENDERS)), zero(), times)

    def take(self, rows: Ints | slice) -> "InterestMeans":
        """Return the means of some users, in the order of `rows`.

        Args:
            rows: indices, which may repeat and give copies, or a slice, which gives views of the same arrays.
        """
        return InterestMeans(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Clicks:
    """One click of each of n users: the vector and the tags that the product had when it was clicked."""

    vector: Floats
    """float32 [n, d]; NaN rows for products without a vector."""
    ages: Floats
    """float32 [n, stages], age distributions, youngest stage first; NaN rows for products without tags."""
    genders: Floats
    """float32 [n, genders], distributions in the order of CHILD_GENDERS; NaN rows for products without tags."""
    time: Ints
    """int64 [n], time of the click, microseconds since 1970 UTC."""

    def take(self, rows: Ints | slice) -> "Clicks":
        """Return the clicks of some users, in the order of `rows`.

        Args:
            rows: indices, which may repeat and give copies, or a slice, which gives views of the same arrays.
        """
        return Clicks(self.vector[rows], self.ages[rows], self.genders[rows], self.time[rows])


@dataclass(frozen=True)
class TimeDecay:
    """How much each of n means decays and ages from a user's previous click to the next."""

    factor: Floats
    """float32 [n], by which the weights are multiplied: 1 after no time, a half after HALF_LIFE_DAYS."""
    age_shift: NDArray[np.float64]
    """float64 [stages, n, stages - 1], result of `ages.compute_age_shift`: how the children have grown meanwhile."""

    @staticmethod
    def from_gaps(microseconds: Ints, age_bounds: Sequence[float] = CHILD_AGE_MONTHS) -> "TimeDecay":
        """Return how n means decay and age between a user's previous click and the next.

        Args:
            microseconds: int64 [n], time between the two clicks of each user. A negative time counts as 0.
            age_bounds: bounds of the child age stages in months.
        """
        # It is negative if a first click is before 1970, which is the time of `InterestMeans.empty`.
        factor = np.exp2(-np.maximum(microseconds, 0) / HALF_LIFE_US).astype(np.float32)
        return TimeDecay(factor, compute_age_shift(microseconds, age_bounds))

    def take(self, rows: slice) -> "TimeDecay":
        """Return the decay of a slice of the n means, as views of the same arrays.

        Args:
            rows: slice of 0 to n. It is applied to axis 0 of `factor` and to axis 1 of `age_shift`.
        """
        return TimeDecay(self.factor[rows], self.age_shift[:, rows])


def add_click(before: InterestMeans, click: Clicks, age_bounds: Sequence[float] = CHILD_AGE_MONTHS) -> InterestMeans:
    """Return the means after one more click of each of n users. The arguments are not changed.

    A click without a vector or without tags leaves that mean (the ages grow with time) and lets its weight decay.

    Args:
        before: the means before; NaN with weight 0 for a user without clicks.
        click: one click for each user, in the order of `before`, none earlier than the user's previous one. The time
            since an earlier one counts as 0.
        age_bounds: bounds of the child age stages in months.
    """
    copy = replace(click, vector=click.vector.copy(), ages=click.ages.copy(), genders=click.genders.copy())
    return _add_in_place(before, copy, TimeDecay.from_gaps(click.time - before.time, age_bounds))


def _add_in_place(before: InterestMeans, click: Clicks, decay: TimeDecay) -> InterestMeans:
    """Return the means after one more click, written over the arrays of the click; no large array is allocated."""
    vector_weight = _update_mean(click.vector, before.vector, before.vector_weight, decay.factor)
    ages_weight = _update_mean(
        click.ages, apply_age_shift(before.ages, decay.age_shift), before.ages_weight, decay.factor
    )
    genders_weight = _update_mean(click.genders, before.genders, before.genders_weight, decay.factor)
    return InterestMeans(
        click.vector, vector_weight, click.ages, ages_weight, click.genders, genders_weight, click.time
    )


def _update_mean(value: Floats, mean: Floats, weight: Floats, factor: Floats) -> Floats:
    """Replace `value` [n, k] by the mean that includes it. A missing value leaves the mean and lets its weight decay.

    Returns:
        float32 [n], the weights of the new means.
    """
    is_present = ~np.isnan(value[:, 0])
    new_weight = weight * factor + is_present.astype(np.float32)
    share = is_present / np.maximum(new_weight, np.float32(1e-30))
    if not is_present.all():
        np.copyto(value, mean, where=~is_present[:, None])
    is_first = np.isnan(mean[:, 0])
    if is_first.any():
        mean = np.where(is_first[:, None], value, mean)
    value -= mean
    value *= share[:, None]
    value += mean
    return new_weight


@dataclass(frozen=True)
class UserInterest:
    """One user's row of the table `user_interest`."""

    means: InterestMeans
    """Means of this user: arrays of 1 row."""
    products: tuple[str, ...] = ()
    """Ids of the last clicked products, at most HISTORY_LENGTH, newest first; repeated clicks are repeated."""
    times: tuple[int, ...] = ()
    """Time of each click in `products`, in the same order, microseconds since 1970 UTC."""
    clicks: int = 0
    """Number of all clicks so far, also those that are no longer in `products`."""
    input_digest: int | None = None
    """What the row was made from (schema.INPUT_DIGEST); None if unknown. `update_interest` leaves it as it is."""


def update_interest(
    interest: UserInterest | None, product: str, click: Clicks, age_bounds: Sequence[float] = CHILD_AGE_MONTHS
) -> UserInterest:
    """Return a user's row after one more click. The arguments are not changed.

    The click becomes the first of `products` and `times`; beyond HISTORY_LENGTH the oldest one leaves them.

    Args:
        interest: the row before; None for a user without clicks.
        product: id of the clicked product.
        click: the click, as arrays of 1 row; no earlier than the user's last one, which is not checked.
        age_bounds: bounds of the child age stages in months.
    """
    before = interest or UserInterest(InterestMeans.empty(1, click.vector.shape[1], click.ages.shape[1]))
    return replace(
        before,
        means=add_click(before.means, click, age_bounds),
        products=(product, *before.products)[:HISTORY_LENGTH],
        times=(int(click.time[0]), *before.times)[:HISTORY_LENGTH],
        clicks=before.clicks + 1,
    )


def compute_interest_histories(
    clicks: Clicks, starts: Ints, age_bounds: Sequence[float] = CHILD_AGE_MONTHS
) -> InterestMeans:
    """Return the means just after each click of many users. The arguments are not changed.

    Args:
        clicks: c clicks, sorted by user, then by time; that is not checked.
        starts: int64 [users + 1], from 0 to c; the clicks of user u are at [starts[u], starts[u + 1]), which may be
            empty.
        age_bounds: bounds of the child age stages in months.

    Returns:
        c means, in the order of the clicks: row i includes click i and the same user's clicks before it.
    """
    lengths = np.diff(starts)
    by_length = np.argsort(-lengths, kind="stable")  # at every step, the users with clicks left come first
    users_at_step = np.searchsorted(-lengths[by_length], -np.arange(lengths.max(initial=0)), side="left")
    ends = np.cumsum(users_at_step)
    step = np.arange(len(clicks.time)) - np.repeat(starts[:-1], lengths)
    position = (ends - users_at_step)[step] + np.repeat(np.argsort(by_length), lengths)  # by step, then by `by_length`
    row = np.argsort(position)
    # The gap before a user's first click does not matter: there is no mean yet.
    decays = TimeDecay.from_gaps(np.diff(clicks.time, prepend=0)[row], age_bounds)
    clicks = clicks.take(row)
    weights = np.empty((3, len(row)), np.float32)
    current = InterestMeans.empty(len(lengths), clicks.vector.shape[1], clicks.ages.shape[1])
    for users, end in zip(users_at_step.tolist(), ends.tolist(), strict=True):
        batch = slice(end - users, end)
        current = _add_in_place(current.take(slice(users)), clicks.take(batch), decays.take(batch))
        weights[:, batch] = current.vector_weight, current.ages_weight, current.genders_weight
    means = InterestMeans(clicks.vector, weights[0], clicks.ages, weights[1], clicks.genders, weights[2], clicks.time)
    return means.take(position)
