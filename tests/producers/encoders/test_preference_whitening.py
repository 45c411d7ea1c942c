"""What users' clicks say of the space that fused vectors are compared in."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.features.similarity import normalize_rows
from producers.encoders import whitening
from producers.encoders.whitening import Space, Vectors

WIDTH, PRODUCTS, USERS, CLICKS = 6, 600, 80, 20
LIKED = 2
"""The direction in which a user's clicks agree."""


def products() -> Vectors:
    return normalize_rows(np.random.default_rng(0).normal(size=(PRODUCTS, WIDTH)).astype(np.float32) + np.float32(0.3))


def space_of(fused: Vectors) -> Space:
    found = whitening.fit_whitening(fused)
    assert found is not None
    return found


def clicks(fused: Vectors, liking: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of users who like or dislike much of LIKED, each click drawn by how much."""
    chance = np.random.default_rng(1)
    odds = np.outer(chance.choice([-liking, liking], USERS), normalize_rows(fused - fused.mean(axis=0))[:, LIKED])
    chosen = [chance.choice(PRODUCTS, CLICKS, p=np.exp(each) / np.exp(each).sum()) for each in odds]
    return np.repeat(np.arange(USERS), CLICKS), np.concatenate(chosen)


def lengths(space: Space, fused: Vectors) -> NDArray[np.float64]:
    """How far products are spread along each coordinate."""
    return np.std((fused - space.centre) @ space.axes, axis=0)


def test_the_direction_in_which_a_users_clicks_agree_counts_for_more_than_any_other() -> None:
    fused = products()
    before = space_of(fused)
    after = whitening.fit_preference_whitening(before, fused, *clicks(fused, liking=4))
    kept = lengths(after, fused) / lengths(before, fused)
    assert kept.argmax() == LIKED
    others = np.delete(kept, LIKED)
    assert kept[LIKED] > 1.5 * others.max()
    assert (others >= np.sqrt(whitening.MIN_DIRECTION_WEIGHT) * 0.99).all()  # none is lost


def test_clicks_at_random_prefer_no_direction() -> None:
    fused = products()
    before = space_of(fused)
    kept = lengths(whitening.fit_preference_whitening(before, fused, *clicks(fused, liking=0)), fused) / lengths(
        before, fused
    )
    assert kept.max() < 0.8


def test_it_does_not_matter_in_which_order_clicks_come_nor_how_often_a_product_was_clicked_again() -> None:
    fused = products()
    users, rows = clicks(fused, liking=2)
    other = np.random.default_rng(2).permutation(np.repeat(np.arange(len(users)), 3))
    np.testing.assert_array_equal(
        whitening.fit_preference_whitening(space_of(fused), fused, users, rows).axes,
        whitening.fit_preference_whitening(space_of(fused), fused, users[other], rows[other]).axes,
    )


def test_clicks_of_products_that_are_not_there_or_have_no_vector_say_nothing() -> None:
    fused = products()
    space = space_of(fused)
    users, rows = clicks(fused, liking=2)
    gone = rows < 100
    expected = whitening.fit_preference_whitening(space, fused, users[~gone], rows[~gone]).axes
    np.testing.assert_array_equal(
        whitening.fit_preference_whitening(space, fused, users, np.where(gone, -1, rows)).axes, expected
    )
    fused[:100] = np.nan
    np.testing.assert_array_equal(whitening.fit_preference_whitening(space, fused, users, rows).axes, expected)


def test_too_few_clicks_leave_the_space_as_it_is() -> None:
    fused = products()
    space = space_of(fused)
    users, rows = clicks(fused, liking=4)
    few = whitening.MIN_CLICKS_PER_DIMENSION * WIDTH - 1
    assert whitening.fit_preference_whitening(space, fused, users[:few], rows[:few]) is space
    assert (
        whitening.fit_preference_whitening(space, fused, np.arange(len(rows)), rows) is space
    )  # no user clicked twice
    assert whitening.fit_preference_whitening(space, fused, users[:0], rows[:0]) is space
