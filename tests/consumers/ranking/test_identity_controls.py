import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from consumers.ranking import identity_controls
from consumers.ranking.click_counts import MICROSECONDS_PER_DAY, index_clicks

logs = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 8), st.integers(0, 1), st.integers(-1, 3)), min_size=1, max_size=40
)


@given(logs, st.integers(1, 4))
def test_identity_controls_count_earlier_clicks(log: list, length: int) -> None:
    user, day, clicked, shown = (np.array(column, np.int64) for column in zip(*log, strict=True))
    time = day * MICROSECONDS_PER_DAY
    clicks = index_clicks(user, time, clicked)
    same = identity_controls.count_same_clicked(shown, clicks, length)
    recent = identity_controls.sum_recent_clicks(clicks, user, time)
    for row in range(len(log)):
        earlier = [i for i in range(len(log)) if user[i] == user[row] and time[i] < time[row] and clicked[i]]
        last = sorted(earlier, key=lambda i: (time[i], i))[-length:]
        assert same[row] == sum(shown[i] == shown[row] >= 0 for i in last)
        np.testing.assert_allclose(
            recent[row],
            sum(0.5 ** ((day[row] - day[i]) / identity_controls.HALF_LIFE_DAYS) for i in earlier),
            rtol=1e-5,
        )
