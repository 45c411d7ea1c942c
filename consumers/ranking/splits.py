"""Which rows of a log train, which decide the verdicts, and which test.

The test is the end of the log, the validation the days just before it. Verdicts are decided on the validation days, by
rankers trained on the rows before them. The test days decide nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.training_set import RankingTrainingSet
from feature_repo.errors import InvalidInputError

DAY = 86_400_000_000
"""A day in microseconds."""
SHARES = (1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2)
"""Shares of the rows to test on, tried in this order until both sides have clicked and unclicked rows."""
VALIDATION_DAYS = 7.0
"""Minimum length of the validation."""
VALIDATION_ROWS = 20_000
"""Minimum number of validation rows."""
VALIDATION_CLICKS = 2_000
"""Minimum number of clicked, and of unclicked, validation rows."""
VALIDATION_SHARE = 1 / 3
"""Maximum number of validation rows, as a share of the rows before the test. It takes precedence over the minima."""
VALIDATION_RULE = (
    f"the last {VALIDATION_DAYS:.0f} days before the test, or as many more as have {VALIDATION_ROWS:,} impressions, "
    f"{VALIDATION_CLICKS:,} clicks and {VALIDATION_CLICKS:,} non-clicks, but at most a third of the impressions before "
    "the test"
)
"""The rule of `find_validation_start`, for reports."""


@dataclass(frozen=True)
class RowSplit:
    """The role of each of the n rows of a log, which is in time order: train, validation or test."""

    train: NDArray[np.bool_]
    """Mask of the rows before the test, including the validation rows [n]."""
    scored: NDArray[np.bool_]
    """Mask of the validation and test rows [n]."""
    validation: NDArray[np.bool_]
    """Mask of the validation rows among the scored rows [scored]; the others are test rows."""
    ablation: NDArray[np.int64]
    """Positions among the train rows that the ablations are trained on, ascending; all lie before the validation."""

    @property
    def test(self) -> NDArray[np.bool_]:
        """Mask of the test rows [n]."""
        return ~self.train


def find_test_start(data: RankingTrainingSet, test_days: float | None) -> int:
    """Return the first microsecond of the test, since 1970 UTC; rows from it on are test rows.

    Args:
        data: the joined log.
        test_days: length of the test in days, need not be whole, counted back from the end of the log's last day (UTC).
            None takes the latest rows: the first of SHARES that leaves clicked and unclicked rows on both sides. Rows
            of one time stay on one side.

    Raises:
        InvalidInputError: a side would be empty, or have only clicked or only unclicked rows.
    """
    timestamp_us, clicked = data.timestamp_us, data.clicked
    if test_days is not None:
        start = int((timestamp_us.max() // DAY + 1) * DAY - test_days * DAY)
        for side, rows in (("before", timestamp_us < start), ("after", timestamp_us >= start)):
            if not _has_both_classes(clicked[rows]):
                raise InvalidInputError(
                    f"the {rows.sum()} impressions {side} {np.datetime64(start, 'us')} are not both clicked and "
                    "unclicked; choose another --test-days or bring a longer log"
                )
        return start
    for share in SHARES:
        start = int(np.quantile(timestamp_us, 1 - share, method="higher"))
        if _has_both_classes(clicked[timestamp_us < start]) and _has_both_classes(clicked[timestamp_us >= start]):
            return start
    first, last = (np.datetime64(int(each), "us") for each in (timestamp_us.min(), timestamp_us.max()))
    raise InvalidInputError(
        f"the log, from {first} to {last}, cannot be split so that both parts have clicked and unclicked impressions; "
        "choose --test-days or bring a longer log"
    )


def find_validation_start(data: RankingTrainingSet, test_start: int) -> int:
    """Return the first microsecond of the validation, since 1970 UTC. The validation ends just before the test.

    It lasts VALIDATION_DAYS, or longer until it has VALIDATION_ROWS rows and VALIDATION_CLICKS clicked and as many
    unclicked ones: a sparse log needs more days for the same power. It has at most VALIDATION_SHARE of the rows before
    the test. If the validation or the rows before it then are all clicked or all unclicked, it is the last quarter,
    third or half of the rows before the test. Rows of one time stay on one side. Rows of the test are not read.

    Args:
        data: the joined log, in time order.
        test_start: first microsecond of the test; there must be rows before it.

    Raises:
        InvalidInputError: the rows before the test cannot be split so that both parts have clicked and unclicked rows.
    """
    before = data.timestamp_us < test_start
    timestamp_us, clicked = data.timestamp_us[before], data.clicked[before]
    rows = len(timestamp_us)
    by_days = test_start - int(VALIDATION_DAYS * DAY)
    required = [VALIDATION_ROWS, *(_count_last_rows(clicked == value, VALIDATION_CLICKS) for value in (0, 1))]
    wanted = min(by_days, int(timestamp_us[max(0, rows - max(required))]))
    earliest = int(timestamp_us[max(0, rows - int(VALIDATION_SHARE * rows) - 1)]) + 1
    chosen = max(wanted, earliest)
    by_rows = (int(np.quantile(timestamp_us, 1 - share, method="higher")) for share in (1 / 4, 1 / 3, 1 / 2))
    for start in (chosen, *by_rows):
        validation = timestamp_us >= start
        if _has_both_classes(clicked[~validation]) and _has_both_classes(clicked[validation]):
            return start
    raise InvalidInputError(
        f"the {rows} impressions before the test cannot be split into training and validation rows so that both "
        "have clicked and unclicked impressions; bring a longer log"
    )


def _count_last_rows(is_counted: NDArray[np.bool_], count: int) -> int:
    """Return how many of the last rows hold `count` rows of a mask [n]; n if the mask has fewer."""
    positions = np.flatnonzero(is_counted)
    return len(is_counted) - int(positions[-count]) if len(positions) >= count else len(is_counted)


def split_rows(data: RankingTrainingSet, validation_start: int, test_start: int, ablation_rows: int) -> RowSplit:
    """Split a log by time.

    Args:
        data: the joined log.
        validation_start: first microsecond of the validation; rows of exactly that time belong to it.
        test_start: first microsecond of the test; rows of exactly that time belong to it.
        ablation_rows: maximum number of rows before the validation that the ablations are trained on; of more rows, a
            sample without replacement is taken, the same in each call.

    Returns:
        The role of each row. It is not checked whether each part has rows.
    """
    timestamp_us = data.timestamp_us
    train = timestamp_us < test_start
    scored = timestamp_us >= validation_start
    early = np.flatnonzero(timestamp_us[train] < validation_start)
    if len(early) > ablation_rows:
        early = np.sort(np.random.default_rng(0).choice(early, ablation_rows, replace=False))
    return RowSplit(train, scored, train[scored], early)


def _has_both_classes(clicked: NDArray[np.integer]) -> bool:
    """Return whether there are both clicked and unclicked rows; False for no rows."""
    return len(clicked) > 0 and clicked.min() != clicked.max()
