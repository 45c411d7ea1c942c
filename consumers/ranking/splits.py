"""Where training ends: the test days at the end of the log, and the validation days just before them.

Verdicts are taken on the validation days, by rankers that were trained before those; the test days are looked at by
nobody who decides anything.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.training_set import TrainingSet
from feature_repo.errors import VitrineError

DAY = 86_400_000_000
SHARES = (1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2)
"""Of the rows: the first that leaves clicks and rows without one on both sides is the test."""
VALIDATION_DAYS = 7.0
VALIDATION_SHARE = 1 / 3
"""At most this share of the time before the test: a short log has a short validation."""


def find_test_start(data: TrainingSet, test_days: float | None) -> int:
    """Where the test begins, in microseconds: `test_days` before the end of the last day, else by share of the rows.

    Raises:
        VitrineError: nothing would be left on one side, or one side has no click or nothing but clicks.
    """
    time, clicked = data.time, data.clicked
    if test_days is not None:
        start = int((time.max() // DAY + 1) * DAY - test_days * DAY)
        for side, rows in (("before", time < start), ("after", time >= start)):
            if not _both(clicked[rows]):
                raise VitrineError(
                    f"{rows.sum()} impressions {side} {np.datetime64(start, 'us')} and not both clicked and unclicked "
                    "among them; choose another --test-days or bring a longer log"
                )
        return start
    for share in SHARES:
        start = int(np.quantile(time, 1 - share, method="higher"))
        if _both(clicked[time < start]) and _both(clicked[time >= start]):
            return start
    raise VitrineError(
        f"no moment of the log, from {np.datetime64(int(time.min()), 'us')} to {np.datetime64(int(time.max()), 'us')}, "
        "has both clicked and unclicked impressions before and after it; choose --test-days or bring a longer log"
    )


def find_validation_start(data: TrainingSet, start: int) -> int:
    """Where the validation days begin, in microseconds: VALIDATION_DAYS before the test, fewer in a short log.

    Args:
        data: the joined log.
        start: where the test begins.

    Raises:
        VitrineError: the days before the test cannot be parted so that both parts have both classes.
    """
    time, clicked = data.time, data.clicked
    before = time[time < start]
    by_days = start - int(min(VALIDATION_DAYS * DAY, VALIDATION_SHARE * (start - int(before.min()))))
    by_rows = (int(np.quantile(before, 1 - share, method="higher")) for share in (1 / 4, 1 / 3, 1 / 2))
    for moment in (by_days, *by_rows):
        if _both(clicked[time < moment]) and _both(clicked[(time >= moment) & (time < start)]):
            return moment
    raise VitrineError(
        f"the {len(before)} impressions before the test cannot be parted into training and validation with clicks and "
        "rows without one in both; bring a longer log"
    )


def _both(clicked: NDArray[np.integer]) -> bool:
    return len(clicked) > 0 and clicked.min() != clicked.max()


@dataclass(frozen=True)
class RowSplit:
    """Which rows of the log [n] do what."""

    train: NDArray[np.bool_]
    """Before the test [n]."""
    judged: NDArray[np.bool_]
    """Validation and test [n]."""
    validation: NDArray[np.bool_]
    """[judged]; the others are the test."""
    ladder: NDArray[np.int64]
    """Which of the train rows the ladder is trained on, all before the validation."""

    @property
    def test(self) -> NDArray[np.bool_]:
        """[n]."""
        return ~self.train


def split_rows(data: TrainingSet, validation: int, start: int, ladder_rows: int) -> RowSplit:
    """Part a log at two moments (microseconds)."""
    time = data.time
    judged = time >= validation
    early = np.flatnonzero(time[time < start] < validation)
    chance = np.random.default_rng(0)
    sample = early if len(early) <= ladder_rows else np.sort(chance.choice(early, ladder_rows, replace=False))
    return RowSplit(time < start, judged, (time < start)[judged], sample)
