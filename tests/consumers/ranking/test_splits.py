from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from consumers.ranking import splits
from consumers.ranking.splits import DAY, VALIDATION_CLICKS, VALIDATION_DAYS, VALIDATION_ROWS, VALIDATION_SHARE
from consumers.ranking.training_set import RankingTrainingSet
from feature_repo.schema import TIMESTAMP
from tests.consumers.ranking.logs import START


def make_log(rows: int, days: float, click_rate: float, seed: int, minutes: int = 1) -> RankingTrainingSet:
    """A log of impressions at whole multiples of some minutes, without views."""
    generator = np.random.default_rng(seed)
    step = minutes * 60_000_000
    time = np.sort(START + generator.integers(0, int(days * DAY), rows) // step * step)
    clicked = (generator.random(rows) < click_rate).astype(np.int8)
    return RankingTrainingSet(pa.table({"event_timestamp": pa.array(time, TIMESTAMP), "clicked": clicked}), {})


def find_by_brute_force(time: np.ndarray, clicked: np.ndarray, test_start: int) -> int:
    """Number of validation rows: the shortest end of the rows before the test that is long enough, or the cap."""
    ends = [rows for rows in range(len(time) + 1) if rows in (0, len(time)) or time[-rows] != time[-rows - 1]]

    def is_enough(rows: int) -> bool:
        clicks = int(clicked[len(time) - rows :].sum())
        few = rows < VALIDATION_ROWS or min(clicks, rows - clicks) < VALIDATION_CLICKS
        outside = time[: len(time) - rows]
        return not few and not (outside >= test_start - VALIDATION_DAYS * DAY).any()

    wanted = next((rows for rows in ends if is_enough(rows)), len(time))
    return (
        wanted if wanted <= VALIDATION_SHARE * len(time) else max(e for e in ends if e <= VALIDATION_SHARE * len(time))
    )


@pytest.mark.parametrize(
    ("rows", "days", "click_rate", "minutes"),
    [
        (120_000, 30, 0.2, 1),  # seven days are enough
        (120_000, 365, 0.2, 1),  # too few rows in seven days
        (120_000, 60, 0.08, 1),  # too few clicks
        (120_000, 60, 0.93, 60),  # too few non-clicks, and ties
        (9_000, 365, 0.2, 1),  # a third of the rows
        (3_000, 9, 0.2, 24 * 60),  # a third of the rows, in days of one timestamp
    ],
)
def test_the_validation_is_the_shortest_that_has_the_days_rows_and_clicks(
    rows: int, days: float, click_rate: float, minutes: int
) -> None:
    data = make_log(rows, days, click_rate, seed=1, minutes=minutes)
    test_start = splits.find_test_start(data, None)
    before = data.timestamp_us < test_start
    start = splits.find_validation_start(data, test_start)
    chosen = int((data.timestamp_us[before] >= start).sum())
    assert chosen == find_by_brute_force(data.timestamp_us[before], data.clicked[before], test_start)


def test_the_rows_of_the_test_do_not_move_the_validation() -> None:
    data = make_log(60_000, 300, 0.2, seed=2)
    test_start = splits.find_test_start(data, None)
    clicked = np.where(data.timestamp_us >= test_start, 1 - data.clicked, data.clicked)
    other = replace(data, impressions=data.impressions.set_column(1, "clicked", pa.array(clicked)))
    assert splits.find_validation_start(data, test_start) == splits.find_validation_start(other, test_start)
    until_test = replace(data, impressions=data.impressions.filter(pa.array(data.timestamp_us < test_start)))
    assert splits.find_validation_start(data, test_start) == splits.find_validation_start(until_test, test_start)


def test_a_log_with_enough_rows_keeps_the_last_seven_days() -> None:
    data = make_log(400_000, 60, 0.2, seed=3)
    test_start = splits.find_test_start(data, 10)
    assert splits.find_validation_start(data, test_start) == test_start - 7 * DAY
