import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from consumers.ranking import click_counts

logs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 1)), min_size=1, max_size=40)


def arrays(log: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.array(column, dtype=np.int64) for column in zip(*log, strict=True))  # type: ignore[return-value]


@given(logs)
def test_count_before_counts_earlier_rows_of_the_same_key(log: list) -> None:
    key, time, clicked = arrays(log)
    shown, clicks = click_counts.count_before(key, time, clicked)
    for row in range(len(log)):
        earlier = (key == key[row]) & (time < time[row])
        assert (shown[row], clicks[row]) == (earlier.sum(), clicked[earlier].sum())


@given(logs, st.integers(1, 5))
def test_the_window_has_the_last_earlier_clicks_newest_first(log: list, length: int) -> None:
    user, time, clicked = arrays(log)
    clicks = click_counts.index_clicks(user, time, clicked)
    window = clicks.window(np.arange(len(log)), length)
    for row in range(len(log)):
        earlier = [i for i in range(len(log)) if user[i] == user[row] and time[i] < time[row] and clicked[i]]
        newest_first = sorted(earlier, key=lambda i: (time[i], i), reverse=True)[:length]
        assert clicks.rows[window[row][window[row] >= 0]].tolist() == newest_first


@given(logs)
def test_days_since_click_count_from_the_last_earlier_click(log: list) -> None:
    user, time, clicked = arrays(log)
    time = time * click_counts.MICROSECONDS_PER_DAY
    days = click_counts.compute_days_since_click(click_counts.index_clicks(user, time, clicked), time)
    for row in range(len(log)):
        earlier = time[(user == user[row]) & (time < time[row]) & (clicked == 1)]
        if len(earlier):
            assert days[row] == (time[row] - earlier.max()) / click_counts.MICROSECONDS_PER_DAY
        else:
            assert np.isnan(days[row])


def test_a_smoothed_rate_moves_from_the_prior_to_the_observed_rate() -> None:
    shown, clicks = np.array([0, 20, 2_000_000]), np.array([0, 10, 1_000_000])
    assert np.allclose(click_counts.smooth_rate(shown, clicks, np.full(3, 0.1), 20), [0.1, 0.3, 0.5], atol=1e-4)
