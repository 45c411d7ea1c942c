"""The truncation test: delete every event after a moment, and every feature up to it stays equal bit for bit.

It catches the leaks that no timestamp shows, such as an array whose width is a total.
"""

import numpy as np
import pytest

from consumers.ranking.baseline_features import compute_baseline
from consumers.ranking.content_features import compute_groups, fit_projection
from consumers.ranking.training_set import TrainingSet
from tests.consumers.ranking.logs import cut, small_log

DATA = small_log()
PROJECTION = fit_projection(DATA.views["product_embedding"], int(DATA.time[len(DATA.time) // 2]))


def every_feature(data: TrainingSet) -> dict[str, np.ndarray]:
    features = compute_baseline(data)
    for group in compute_groups(data, PROJECTION).values():
        features |= group
    return features


@pytest.mark.parametrize("share", [0.1, 0.5, 0.93])
def test_no_feature_changes_when_the_future_is_deleted(share: float) -> None:
    moment = DATA.time[int(share * len(DATA.time))]
    kept = int(np.searchsorted(DATA.time, moment, side="right"))
    whole, truncated = every_feature(DATA), every_feature(cut(DATA, kept))
    assert whole.keys() == truncated.keys()
    changed = [name for name in whole if whole[name][:kept].tobytes() != truncated[name].tobytes()]
    assert not changed


def test_the_check_would_see_a_feature_that_looks_at_a_total() -> None:
    def clicks_of_all_time(data: TrainingSet) -> np.ndarray:
        return np.bincount(data.product, weights=data.clicked)[data.product]

    kept = len(DATA.time) // 2
    assert clicks_of_all_time(DATA)[:kept].tobytes() != clicks_of_all_time(cut(DATA, kept)).tobytes()
