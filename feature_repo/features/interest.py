"""What a user's clicks say of the user: means that forget, and the last clicks themselves.

Of the vectors of clicked products, and of their tags, a user has the mean in which a click weighs half as much every
HALF_LIFE_DAYS; what the clicks said of the child's age grows older with the child. Everything that the next click
needs is in the row, so that clicks that stream in one at a time and whole histories at once give the same rows, bit for
bit: both take one step at a time through the same arithmetic, none of which mixes users.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feature_repo.features.ages import apply_age_shift, compute_age_shift
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, HISTORY_LENGTH

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

HALF_LIFE_DAYS = 14.0
"""After how long a click counts half."""
HALF_LIFE = HALF_LIFE_DAYS * 86_400_000_000


@dataclass(frozen=True)
class InterestMeans:
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
    def empty(users: int, width: int) -> "InterestMeans":
        """Of users who have clicked nothing."""

        def empty(*shape: int) -> Floats:
            return np.full((users, *shape), np.nan, np.float32)

        def zero() -> Floats:
            return np.zeros(users, np.float32)

        times = np.zeros(users, np.int64)
        return InterestMeans(
            empty(width), zero(), empty(len(CHILD_AGES)), zero(), empty(len(CHILD_GENDERS)), zero(), times
        )

    def take(self, rows: Ints | slice) -> "InterestMeans":
        """The means of some users."""
        return InterestMeans(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Clicks:
    """One click of each of n users: what was known of the product when it was clicked."""

    vector: Floats
    """[n, d], NaN rows where there is none."""
    ages: Floats
    """[n, stages]."""
    genders: Floats
    """[n, genders]."""
    time: Ints
    """[n], microseconds."""

    def take(self, rows: Ints | slice) -> "Clicks":
        """The clicks of some rows."""
        return Clicks(self.vector[rows], self.ages[rows], self.genders[rows], self.time[rows])


@dataclass(frozen=True)
class TimeDecay:
    """What the time since the click before does to each of n means."""

    kept: Floats
    """[n], of their weights."""
    age_shift: NDArray[np.float64]
    """[stages, n, stages - 1], of the children (ages.py)."""

    @staticmethod
    def from_gaps(microseconds: Ints) -> "TimeDecay":
        """Of pauses [n]; a negative one counts as none: a first click may be before 1970, where `nothing` stands."""
        kept = np.exp2(-np.maximum(microseconds, 0) / HALF_LIFE).astype(np.float32)
        return TimeDecay(kept, compute_age_shift(microseconds))

    def take(self, rows: slice) -> "TimeDecay":
        """The pauses of some rows."""
        return TimeDecay(self.kept[rows], self.age_shift[:, rows])


def add_click(before: InterestMeans, click: Clicks) -> InterestMeans:
    """The means after one more click of each of n users; no click is earlier than the one before it."""
    own = replace(click, vector=click.vector.copy(), ages=click.ages.copy(), genders=click.genders.copy())
    return _moved(before, own, TimeDecay.from_gaps(click.time - before.time))


def _moved(before: InterestMeans, click: Clicks, pause: TimeDecay) -> InterestMeans:
    """The means after one more click, written over the click's own vectors: nothing large is copied or made."""
    vector_weight = _move(click.vector, before.vector, before.vector_weight, pause.kept)
    ages_weight = _move(click.ages, apply_age_shift(before.ages, pause.age_shift), before.ages_weight, pause.kept)
    genders_weight = _move(click.genders, before.genders, before.genders_weight, pause.kept)
    return InterestMeans(
        click.vector, vector_weight, click.ages, ages_weight, click.genders, genders_weight, click.time
    )


def _move(value: Floats, mean: Floats, weight: Floats, kept: Floats) -> Floats:
    """Put the mean after one more value [n, k] in the value's place; a missing one only makes the others older.

    Returns:
        The weights [n] after it.
    """
    known = ~np.isnan(value[:, 0])
    newer = weight * kept + known.astype(np.float32)
    share = known / np.maximum(newer, np.float32(1e-30))
    if not known.all():
        np.copyto(value, mean, where=~known[:, None])
    first = np.isnan(mean[:, 0])
    if first.any():
        mean = np.where(first[:, None], value, mean)
    value -= mean
    value *= share[:, None]
    value += mean
    return newer


@dataclass(frozen=True)
class UserInterest:
    """One user's row of `user_interest`."""

    means: InterestMeans
    """Of this user alone: n is 1."""
    products: tuple[str, ...] = ()
    """The last HISTORY_LENGTH clicks, newest first."""
    times: tuple[int, ...] = ()
    """Microseconds since 1970 UTC of each."""
    clicks: int = 0
    """So far."""


def update_interest(interest: UserInterest | None, product: str, click: Clicks) -> UserInterest:
    """A user's row after one more click, which is no earlier than the last; None for a user without clicks.

    Args:
        interest: as it was.
        product: what was clicked.
        click: of this user alone: n is 1.
    """
    before = interest or UserInterest(InterestMeans.empty(1, click.vector.shape[1]))
    return replace(
        before,
        means=add_click(before.means, click),
        products=(product, *before.products)[:HISTORY_LENGTH],
        times=(int(click.time[0]), *before.times)[:HISTORY_LENGTH],
        clicks=before.clicks + 1,
    )


def compute_interest_histories(clicks: Clicks, starts: Ints) -> InterestMeans:
    """The means just after each click of many users.

    Args:
        clicks: [c], by user, then time.
        starts: int64 [users + 1]: clicks of user u are [starts[u], starts[u + 1]).

    Returns:
        [c], in the order of the clicks.
    """
    lengths = np.diff(starts)
    by_length = np.argsort(-lengths, kind="stable")  # at every step, the users who still click are the first ones
    clicking = np.searchsorted(-lengths[by_length], -np.arange(lengths.max(initial=0)), side="left")
    ends = np.cumsum(clicking)
    rank = np.arange(len(clicks.time)) - np.repeat(starts[:-1], lengths)
    place = (ends - clicking)[rank] + np.repeat(np.argsort(by_length), lengths)  # by step, and then as `by_length`
    row = np.argsort(place)
    pauses = TimeDecay.from_gaps(np.diff(clicks.time, prepend=0)[row])  # before a first click any: there is no mean yet
    clicks = clicks.take(row)
    weights = np.empty((3, len(row)), np.float32)
    now = InterestMeans.empty(len(lengths), clicks.vector.shape[1])
    for users, end in zip(clicking.tolist(), ends.tolist(), strict=True):
        batch = slice(end - users, end)
        now = _moved(now.take(slice(users)), clicks.take(batch), pauses.take(batch))
        weights[:, batch] = now.vector_weight, now.ages_weight, now.genders_weight
    means = InterestMeans(clicks.vector, weights[0], clicks.ages, weights[1], clicks.genders, weights[2], clicks.time)
    return means.take(place)
