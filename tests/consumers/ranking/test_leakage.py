"""Honesty under mutation: each way of looking into the future is found and named, and an honest log is not accused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from consumers.ranking import leakage
from consumers.ranking.baseline_features import compute_baseline
from consumers.ranking.content_features import compute_groups, fit_projection
from consumers.ranking.training_set import JoinedView, TrainingSet
from feature_repo.errors import VitrineError
from feature_repo.schema import HISTORY_LENGTH
from tests.consumers.ranking.logs import DAY, measured, small_log


def with_interests(data: TrainingSet, *, said_earlier: int = 0, seen_early: int = 0) -> TrainingSet:
    """The log with a view of the clicks of each user so far.

    Args:
        data: the log.
        said_earlier: how much too early each version says it is, its clicks too (microseconds).
        seen_early: how much too early each version is joined, though it says when it was.
    """
    users, times, products = data.user, data.time, data.impressions.column("product_id").to_pylist()
    clicks = np.flatnonzero(data.clicked)
    since, lists, moments = [], [], []
    mine: dict[int, list[int]] = {}
    owner = []
    for click in clicks:
        history = mine.setdefault(int(users[click]), [])
        history.insert(0, int(click))
        del history[HISTORY_LENGTH:]
        owner.append(int(users[click]))
        since.append(int(times[click]) + 1 - said_earlier)
        lists.append([products[i] for i in history])
        moments.append([int(times[i]) - said_earlier for i in history])
    versions = pa.table({"recent_products": lists, "recent_times": pa.array(moments, pa.list_(pa.int64()))})
    by_user = {user: [i for i, of in enumerate(owner) if of == user] for user in mine}
    row = np.full(len(times), -1)
    for i, (user, time) in enumerate(zip(users, times, strict=True)):
        known = by_user.get(int(user), [])
        place = int(np.searchsorted([since[version] for version in known], time + seen_early, side="right"))
        row[i] = known[place - 1] if place else -1
    view = JoinedView(versions, np.array(since), row)
    return data.with_views({**data.views, "user_interest": view})


def found(data: TrainingSet) -> set[str]:
    projection = fit_projection(data.views["product_embedding"], int(data.time[-1]))
    features = {"tabular": compute_baseline(data), **compute_groups(data, projection)}
    return {leak.feature for leak in leakage.find_leaks(data, features)}


def test_an_honest_log_is_not_accused() -> None:
    assert found(with_interests(small_log())) == set()


def test_tomorrows_clicks_among_the_interests_are_found_though_they_say_they_are_yesterdays() -> None:
    assert found(with_interests(small_log(products=2000), said_earlier=2 * DAY)) == {"user_interest.recent_products"}


def test_a_row_that_is_joined_a_day_too_early_is_found_by_what_it_says_of_its_time() -> None:
    assert {"user_interest", "user_interest.recent_times"} <= found(with_interests(small_log(), seen_early=DAY))


def test_a_view_whose_timestamps_are_a_day_later_than_the_join_took_them_for_is_named() -> None:
    data = small_log()
    view = data.views["product_tags"]
    shifted = data.with_views({**data.views, "product_tags": replace(view, since=view.since + 30 * DAY)})
    assert found(shifted) == {"product_tags"}


@pytest.mark.parametrize("values", [np.float32, np.int32], ids=["number", "category"])
def test_a_column_that_says_whether_it_was_clicked_is_named_and_ends_the_measurement(values: type) -> None:
    data = small_log()
    chance = np.random.default_rng(0)
    copy = np.where(chance.random(len(data.clicked)) < 0.05, 1 - data.clicked, data.clicked).astype(values)
    assert [leak.feature for leak in leakage.find_implausible_features({"dwell_time": copy}, data.clicked)] == [
        "dwell_time"
    ]
    log = data.impressions.append_column("dwell_time", pa.array(copy.astype(np.float32)))
    with pytest.raises(VitrineError, match=r"dwell_time.*AUC of 0\.9"):
        measured(replace(data, impressions=log), days=5)


def test_a_category_of_many_values_is_not_accused_of_what_it_learnt_by_heart() -> None:
    chance = np.random.default_rng(0)
    clicked = chance.integers(0, 2, 4000)
    assert leakage.find_implausible_features({"id": np.arange(4000) // 2}, clicked) == []


def test_a_feature_that_is_only_there_when_clicked_is_found_by_where_it_is_missing() -> None:
    clicked = np.random.default_rng(0).integers(0, 2, 4000)
    only = np.where(clicked == 1, 7.0, np.nan).astype(np.float32)
    assert [leak.feature for leak in leakage.find_implausible_features({"order_value": only}, clicked)] == [
        "order_value"
    ]
