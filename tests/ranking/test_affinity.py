import numpy as np
import pytest

from consumers.ranking import affinity
from consumers.ranking.history import MICROSECONDS_A_DAY, clicks_of_users


@pytest.fixture
def log() -> dict[str, np.ndarray]:
    chance = np.random.default_rng(3)
    rows, products = 700, 90
    vectors = chance.normal(size=(products, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {
        "user": chance.integers(0, 9, rows),
        "time": np.sort(chance.integers(0, 300, rows)) * MICROSECONDS_A_DAY // 10,
        "clicked": (chance.random(rows) < 0.3).astype(np.int8),
        "candidates": chance.integers(-1, products, rows),
        "vectors": vectors,
    }


def slow_history(log: dict[str, np.ndarray], row: int) -> list[int]:
    """Rows of the user's clicks before `row`, newest first: the obvious way."""
    user, time = log["user"], log["time"]
    earlier = [i for i in np.flatnonzero(log["clicked"]) if user[i] == user[row] and time[i] < time[row]]
    return sorted(earlier, key=lambda i: (time[i], i), reverse=True)


def test_similarities_are_the_cosines_to_the_last_clicks(log: dict[str, np.ndarray]) -> None:
    clicks = clicks_of_users(log["user"], log["time"], log["clicked"])
    length = 7
    similar = affinity.window_similarities(log["candidates"], log["vectors"], clicks, log["user"], length)
    for row in range(len(similar)):
        expected = np.full(length, np.nan)
        for place, click in enumerate(slow_history(log, row)[:length]):
            mine, theirs = log["candidates"][row], log["candidates"][click]
            if mine >= 0 and theirs >= 0:
                expected[place] = log["vectors"][mine] @ log["vectors"][theirs]
        np.testing.assert_allclose(similar[row], expected, atol=1e-5)


def test_summaries_leave_out_what_is_missing() -> None:
    similar = np.array([[0.5, np.nan, 0.1, 0.9], [np.nan] * 4], np.float32)
    found = affinity.summaries(similar, top=2)
    np.testing.assert_allclose(found["max"], [0.9, np.nan])
    np.testing.assert_allclose(found["mean"], [0.5, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found["top2"], [0.7, np.nan], rtol=1e-6)


def test_an_interest_is_the_sum_of_clicks_halved_every_half_life(log: dict[str, np.ndarray]) -> None:
    clicks = clicks_of_users(log["user"], log["time"], log["clicked"])
    values = log["vectors"][log["candidates"][clicks.rows]]
    sums = affinity.decayed_sums(values, clicks, log["user"], log["time"], half_life_days=5.0)
    for place, row in enumerate(clicks.rows):
        same = [p for p, r in enumerate(clicks.rows) if log["user"][r] == log["user"][row] and p <= place]
        age = (log["time"][row] - log["time"][clicks.rows[same]]) / MICROSECONDS_A_DAY
        np.testing.assert_allclose(sums[place], (0.5 ** (age / 5.0)) @ values[same], atol=1e-4)


def test_a_cosine_with_nothing_is_missing_not_zero() -> None:
    left, right = np.array([[3.0, 4.0]], np.float32), np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    found = affinity.rowwise_cosine(np.array([0, 0, -1]), left, np.array([0, 1, 0]), right)
    np.testing.assert_allclose(found, [1.0, np.nan, np.nan])
