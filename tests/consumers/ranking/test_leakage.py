"""Every kind of leak is found and named, and an honest log has none."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from consumers.ranking import leakage
from consumers.ranking.baseline_features import compute_baseline
from consumers.ranking.content_features import compute_groups, fit_projection
from consumers.ranking.training_set import JoinedView, RankingTrainingSet
from feature_repo.errors import VitrineError
from feature_repo.schema import HISTORY_LENGTH
from tests.consumers.ranking.logs import DAY, measure_small_lift, small_log


def with_interests(data: RankingTrainingSet, *, shifted_us: int = 0, joined_early_us: int = 0) -> RankingTrainingSet:
    """Return the log with a view of each user's clicks so far.

    Args:
        data: the log.
        shifted_us: microseconds by which each version's timestamp, and those of its clicks, are too early.
        joined_early_us: microseconds by which each version is joined too early, with its true timestamps.
    """
    users, times, products = data.user, data.timestamp_us, data.impressions.column("product_id").to_pylist()
    clicks = np.flatnonzero(data.clicked)
    since, lists, click_times = [], [], []
    mine: dict[int, list[int]] = {}
    owner = []
    for click in clicks:
        history = mine.setdefault(int(users[click]), [])
        history.insert(0, int(click))
        del history[HISTORY_LENGTH:]
        owner.append(int(users[click]))
        since.append(int(times[click]) + 1 - shifted_us)
        lists.append([products[i] for i in history])
        click_times.append([int(times[i]) - shifted_us for i in history])
    versions = pa.table({"recent_products": lists, "recent_times": pa.array(click_times, pa.list_(pa.int64()))})
    by_user = {user: [i for i, of in enumerate(owner) if of == user] for user in mine}
    row = np.full(len(times), -1)
    for i, (user, time) in enumerate(zip(users, times, strict=True)):
        versions_of_user = by_user.get(int(user), [])
        count = int(
            np.searchsorted([since[version] for version in versions_of_user], time + joined_early_us, side="right")
        )
        row[i] = versions_of_user[count - 1] if count else -1
    view = JoinedView(versions, np.array(since), row)
    return data.with_views({**data.views, "user_interest": view})


def find_leak_names(data: RankingTrainingSet) -> set[str]:
    projection = fit_projection(data.views["product_embedding"], int(data.timestamp_us[-1]))
    features = {"tabular": compute_baseline(data), **compute_groups(data, projection)}
    return {leak.feature for leak in leakage.find_leaks(data, features)}


def test_an_honest_log_has_no_leaks() -> None:
    assert find_leak_names(with_interests(small_log())) == set()


def test_future_clicks_with_earlier_timestamps_are_found() -> None:
    assert find_leak_names(with_interests(small_log(products=2000), shifted_us=2 * DAY)) == {
        "user_interest.recent_products"
    }


def test_a_row_joined_a_day_too_early_is_found_by_its_timestamps() -> None:
    assert {"user_interest", "user_interest.recent_times"} <= find_leak_names(
        with_interests(small_log(), joined_early_us=DAY)
    )


def test_a_view_with_shifted_event_timestamps_is_named() -> None:
    data = small_log()
    view = data.views["product_tags"]
    shifted = data.with_views({**data.views, "product_tags": replace(view, timestamp_us=view.timestamp_us + 30 * DAY)})
    assert find_leak_names(shifted) == {"product_tags"}


@pytest.mark.parametrize("values", [np.float32, np.int32], ids=["number", "category"])
def test_a_column_that_copies_the_click_ends_the_measurement_with_its_name(values: type) -> None:
    data = small_log()
    generator = np.random.default_rng(0)
    copy = np.where(generator.random(len(data.clicked)) < 0.05, 1 - data.clicked, data.clicked).astype(values)
    assert [leak.feature for leak in leakage.find_implausible_features({"dwell_time": copy}, data.clicked)] == [
        "dwell_time"
    ]
    log = data.impressions.append_column("dwell_time", pa.array(copy.astype(np.float32)))
    with pytest.raises(VitrineError, match=r"dwell_time.*AUC of 0\.9"):
        measure_small_lift(replace(data, impressions=log), days=5)


def test_a_category_with_many_values_is_not_a_leak() -> None:
    generator = np.random.default_rng(0)
    clicked = generator.integers(0, 2, 4000)
    assert leakage.find_implausible_features({"id": np.arange(4000) // 2}, clicked) == []


def test_a_feature_that_is_missing_when_unclicked_is_a_leak() -> None:
    clicked = np.random.default_rng(0).integers(0, 2, 4000)
    only = np.where(clicked == 1, 7.0, np.nan).astype(np.float32)
    assert [leak.feature for leak in leakage.find_implausible_features({"order_value": only}, clicked)] == [
        "order_value"
    ]
