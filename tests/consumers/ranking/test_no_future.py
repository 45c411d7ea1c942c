"""Truncation test: if all later events are deleted, every feature of the earlier rows stays equal bit for bit.

This finds leaks that no timestamp shows, such as a feature computed from a total.
"""

import numpy as np
import pytest

from consumers.ranking.baseline_features import compute_baseline
from consumers.ranking.content_features import compute_groups, fit_projection
from consumers.ranking.training_set import RankingTrainingSet
from tests.consumers.ranking.logs import small_log, truncate

DATA = small_log()
PROJECTION = fit_projection(DATA.views["product_embedding"], int(DATA.timestamp_us[len(DATA.timestamp_us) // 2]))


def every_feature(data: RankingTrainingSet) -> dict[str, np.ndarray]:
    features = compute_baseline(data)
    for group in compute_groups(data, PROJECTION).values():
        features |= group
    return features


@pytest.mark.parametrize("share", [0.1, 0.5, 0.93])
def test_no_feature_changes_when_later_rows_are_deleted(share: float) -> None:
    cutoff = DATA.timestamp_us[int(share * len(DATA.timestamp_us))]
    kept = int(np.searchsorted(DATA.timestamp_us, cutoff, side="right"))
    whole, truncated = every_feature(DATA), every_feature(truncate(DATA, kept))
    assert whole.keys() == truncated.keys()
    changed = [name for name in whole if whole[name][:kept].tobytes() != truncated[name].tobytes()]
    assert not changed


def test_the_check_finds_a_feature_that_uses_a_total() -> None:
    def clicks_of_all_time(data: RankingTrainingSet) -> np.ndarray:
        return np.bincount(data.product, weights=data.clicked)[data.product]

    kept = len(DATA.timestamp_us) // 2
    assert clicks_of_all_time(DATA)[:kept].tobytes() != clicks_of_all_time(truncate(DATA, kept)).tobytes()
