"""What a user's clicks say of the user: means that forget, and the last clicks themselves.

Of the vectors of clicked products, and of their tags, a user has the mean in which a click weighs half as much every
HALF_LIFE_DAYS; what the clicks said of the child's age grows older with the child. Everything that the next click
needs is in the row, so that clicks that stream in one at a time and whole histories at once give the same rows, bit for
bit: both take one step at a time through the same arithmetic, none of which mixes users.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feature_repo.features.ages import grown
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, HISTORY_LENGTH

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

HALF_LIFE_DAYS = 14.0
"""After how long a click counts half."""
HALF_LIFE = HALF_LIFE_DAYS * 86_400_000_000


@dataclass(frozen=True)
class Means:
    """The means of n users, each just after a click.

    Weights are the sums of the clicks' own, as of the last click: how much the mean is to be believed.
    """

    vector: Floats
    """[n, d], NaN rows where no click had a vector."""
    vector_weight: Floats
    """[n]."""
    ages: Floats
    """[n, stages], as of the last click."""
    ages_weight: Floats
    genders: Floats
    """[n, genders]."""
    genders_weight: Floats
    time: Ints
    """[n], microseconds: the last click."""

    @staticmethod
    def nothing(users: int, width: int) -> "Means":
        """Of users who have clicked nothing."""

        def empty(*shape: int) -> Floats:
            return np.full((users, *shape), np.nan, np.float32)

        def zero() -> Floats:
            return np.zeros(users, np.float32)

        times = np.zeros(users, np.int64)
        return Means(empty(width), zero(), empty(len(CHILD_AGES)), zero(), empty(len(CHILD_GENDERS)), zero(), times)

    def of(self, rows: Ints | slice) -> "Means":
        """The means of some users."""
        return Means(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Click:
    """One click of each of n users: what was known of the product when it was clicked."""

    vector: Floats
    """[n, d], NaN rows where there is none."""
    ages: Floats
    """[n, stages]."""
    genders: Floats
    """[n, genders]."""
    time: Ints
    """[n], microseconds."""

    def of(self, rows: Ints | slice) -> "Click":
        """The clicks of some rows."""
        return Click(self.vector[rows], self.ages[rows], self.genders[rows], self.time[rows])


def step(before: Means, click: Click) -> Means:
    """The means after one more click of each of n users; no click is earlier than the one before it."""
    passed = np.maximum(click.time - before.time, 0)  # a first click may be before 1970, where `nothing` stands
    kept = np.exp2(-passed / HALF_LIFE).astype(np.float32)
    vector, vector_weight = _mean(before.vector, before.vector_weight, click.vector, kept)
    ages, ages_weight = _mean(grown(before.ages, passed), before.ages_weight, click.ages, kept)
    genders, genders_weight = _mean(before.genders, before.genders_weight, click.genders, kept)
    return Means(vector, vector_weight, ages, ages_weight, genders, genders_weight, click.time)


def _mean(mean: Floats, weight: Floats, value: Floats, kept: Floats) -> tuple[Floats, Floats]:
    """A mean [n, k] and its weight [n] after one more value; a missing value only makes the others older."""
    known = ~np.isnan(value[:, 0])
    older = weight * kept
    newer = older + known.astype(np.float32)
    first = known & np.isnan(mean[:, 0])
    share = np.where(known, np.float32(1) / np.maximum(newer, np.float32(1e-30)), np.float32(0))
    base = np.where(first[:, None], value, mean)
    moved = base + (np.where(known[:, None], value, base) - base) * share[:, None]
    return moved, newer


@dataclass(frozen=True)
class Interest:
    """One user's row of `user_interest`."""

    means: Means
    """Of this user alone: n is 1."""
    products: tuple[str, ...] = ()
    """The last HISTORY_LENGTH clicks, newest first."""
    times: tuple[int, ...] = ()
    """Microseconds since 1970 UTC of each."""
    clicks: int = 0
    """So far."""


def update(interest: Interest | None, product: str, click: Click) -> Interest:
    """A user's row after one more click, which is no earlier than the last; None for a user without clicks.

    Args:
        interest: as it was.
        product: what was clicked.
        click: of this user alone: n is 1.
    """
    before = interest or Interest(Means.nothing(1, click.vector.shape[1]))
    return replace(
        before,
        means=step(before.means, click),
        products=(product, *before.products)[:HISTORY_LENGTH],
        times=(int(click.time[0]), *before.times)[:HISTORY_LENGTH],
        clicks=before.clicks + 1,
    )


def means_of_histories(clicks: Click, starts: Ints) -> Means:
    """The means just after each click of many users.

    Args:
        clicks: [c], by user, then time.
        starts: int64 [users + 1]: clicks of user u are [starts[u], starts[u + 1]).

    Returns:
        [c], in the order of the clicks.
    """
    width = clicks.vector.shape[1]
    result = Means.nothing(len(clicks.time), width)
    lengths = np.diff(starts)
    by_length = np.argsort(-lengths, kind="stable")  # at every step, the users who still click are the first ones
    first, lengths = starts[:-1][by_length], lengths[by_length]
    now = Means.nothing(len(first), width)
    for rank in range(int(lengths.max(initial=0))):
        clicking = int(np.searchsorted(-lengths, -rank, side="left"))
        row = first[:clicking] + rank
        now = step(now.of(slice(clicking)), clicks.of(row))
        for name in Means.__dataclass_fields__:
            getattr(result, name)[row] = getattr(now, name)
    return result
