"""Preference whitening: directions in which the clicks of a user agree count for more."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.features.similarity import normalize_rows
from feature_repo.fusion import Space, Vectors
from producers.encoders import whitening

WIDTH, PRODUCTS, USERS, CLICKS = 6, 600, 80, 20
LIKED = 2
"""The direction in which a user's clicks agree."""


def products() -> Vectors:
    return normalize_rows(np.random.default_rng(0).normal(size=(PRODUCTS, WIDTH)).astype(np.float32) + np.float32(0.3))


def fit_space(fused: Vectors) -> Space:
    space = whitening.fit_whitening(fused)
    assert space is not None
    return space


def clicks(fused: Vectors, liking: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return clicks of users who like or dislike products with a large component LIKED, `liking` times as much."""
    rng = np.random.default_rng(1)
    odds = np.outer(rng.choice([-liking, liking], USERS), normalize_rows(fused - fused.mean(axis=0))[:, LIKED])
    chosen = [rng.choice(PRODUCTS, CLICKS, p=np.exp(each) / np.exp(each).sum()) for each in odds]
    return np.repeat(np.arange(USERS), CLICKS), np.concatenate(chosen)


def spreads(space: Space, fused: Vectors) -> NDArray[np.float64]:
    """Return the standard deviation of the products along each coordinate."""
    return np.std((fused - space.centre) @ space.axes, axis=0)


def test_the_direction_in_which_the_clicks_of_a_user_agree_counts_most() -> None:
    fused = products()
    before = fit_space(fused)
    after = whitening.fit_preference_whitening(before, fused, *clicks(fused, liking=4))
    kept = spreads(after, fused) / spreads(before, fused)
    assert kept.argmax() == LIKED
    others = np.delete(kept, LIKED)
    assert kept[LIKED] > 1.5 * others.max()
    assert (others >= np.sqrt(whitening.MIN_DIRECTION_WEIGHT) * 0.99).all()  # no direction is removed


def test_random_clicks_prefer_no_direction() -> None:
    fused = products()
    before = fit_space(fused)
    kept = spreads(whitening.fit_preference_whitening(before, fused, *clicks(fused, liking=0)), fused) / spreads(
        before, fused
    )
    assert kept.max() < 0.8


def test_the_order_of_clicks_and_repeated_clicks_do_not_matter() -> None:
    fused = products()
    users, rows = clicks(fused, liking=2)
    other = np.random.default_rng(2).permutation(np.repeat(np.arange(len(users)), 3))
    np.testing.assert_array_equal(
        whitening.fit_preference_whitening(fit_space(fused), fused, users, rows).axes,
        whitening.fit_preference_whitening(fit_space(fused), fused, users[other], rows[other]).axes,
    )


def test_clicks_on_unknown_products_or_without_a_vector_are_ignored() -> None:
    fused = products()
    space = fit_space(fused)
    users, rows = clicks(fused, liking=2)
    gone = rows < 100
    expected = whitening.fit_preference_whitening(space, fused, users[~gone], rows[~gone]).axes
    np.testing.assert_array_equal(
        whitening.fit_preference_whitening(space, fused, users, np.where(gone, -1, rows)).axes, expected
    )
    fused[:100] = np.nan
    np.testing.assert_array_equal(whitening.fit_preference_whitening(space, fused, users, rows).axes, expected)


def test_too_few_clicks_leave_the_space_unchanged() -> None:
    fused = products()
    space = fit_space(fused)
    users, rows = clicks(fused, liking=4)
    few = whitening.MIN_CLICKS_PER_DIMENSION * WIDTH - 1
    assert whitening.fit_preference_whitening(space, fused, users[:few], rows[:few]) is space
    assert (
        whitening.fit_preference_whitening(space, fused, np.arange(len(rows)), rows) is space
    )  # no user clicked twice
    assert whitening.fit_preference_whitening(space, fused, users[:0], rows[:0]) is space
