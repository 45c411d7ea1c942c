"""Cosines to the last clicks, compared with the general function for any history."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumers.ranking.click_counts import index_clicks
from feature_repo.features.similarity import compute_history_cosines, compute_window_cosines

PRODUCTS, WIDTH, LENGTH = 7, 5, 4


@st.composite
def logs(draw: st.DrawFn) -> tuple[NDArray[np.int64], ...]:
    """Draw user, timestamp, click and vector index (-1 for none) of rows in time order."""
    rows = draw(st.integers(1, 40))

    def numbers(low: int, high: int) -> NDArray[np.int64]:
        return np.array(draw(st.lists(st.integers(low, high), min_size=rows, max_size=rows)))

    return numbers(0, 2), np.sort(numbers(0, 20)), numbers(0, 1), numbers(-1, PRODUCTS - 1)


@given(logs(), st.integers(0, 2**16))
def test_window_cosines_equal_the_cosines_of_explicit_histories(log: tuple[NDArray[np.int64], ...], seed: int) -> None:
    user, time, clicked, candidate = log
    vectors = np.random.default_rng(seed).normal(size=(PRODUCTS, WIDTH)).astype(np.float32)
    vectors[0] = np.nan
    clicks = index_clicks(user, time, clicked)
    shown = candidate[clicks.rows]
    history = np.append(shown, -1)[clicks.window(np.arange(len(user)), LENGTH)]
    found = compute_window_cosines(vectors, candidate, shown, clicks.before, clicks.end, user, LENGTH)
    wanted = compute_history_cosines(vectors, candidate, history, user)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@given(logs(), st.integers(0, 2**16), st.integers(0, 20))
def test_later_rows_do_not_change_earlier_results_by_a_single_bit(
    log: tuple[NDArray[np.int64], ...], seed: int, until: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(PRODUCTS, WIDTH)).astype(np.float32)

    def cosines(
        user: NDArray[np.int64], time: NDArray[np.int64], clicked: NDArray[np.int64], candidate: NDArray[np.int64]
    ):
        clicks = index_clicks(user, time, clicked)
        return compute_window_cosines(
            vectors, candidate, candidate[clicks.rows], clicks.before, clicks.end, user, LENGTH
        )

    early = log[1] <= until
    np.testing.assert_array_equal(cosines(*log)[early], cosines(*(column[early] for column in log)))
