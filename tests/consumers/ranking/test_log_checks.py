from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from consumers.ranking.leakage import REQUIRED_COLUMNS, check_log
from consumers.ranking.training_set import JoinedView, RankingTrainingSet
from feature_repo.errors import VitrineError
from feature_repo.schema import TIMESTAMP
from tests.consumers.ranking.logs import small_log


def with_column(data: RankingTrainingSet, name: str, values: pa.Array) -> RankingTrainingSet:
    log = data.impressions
    return replace(data, impressions=log.set_column(log.column_names.index(name), name, values))


def refused(data: RankingTrainingSet) -> str:
    with pytest.raises(VitrineError) as caught:
        check_log(data, "log.parquet")
    assert str(caught.value).startswith("log.parquet: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_usable_log_passes() -> None:
    check_log(small_log(), "log.parquet")


@pytest.mark.parametrize(
    ("value", "message"), [(0, "all 3,000 impressions are not clicked"), (1, "all 3,000 impressions are clicked")]
)
def test_a_log_with_one_class_is_rejected(value: int, message: str) -> None:
    data = small_log()
    assert message in refused(with_column(data, "clicked", pa.array(np.full(3000, value, np.int8))))


def test_a_log_with_one_timestamp_is_rejected() -> None:
    data = small_log()
    timestamps = pa.array(np.full(3000, int(data.timestamp_us[0])), TIMESTAMP)
    assert "every impression has the timestamp 2026-01-01" in refused(with_column(data, "event_timestamp", timestamps))


def test_a_log_with_too_few_users_is_rejected_with_their_number() -> None:
    assert "7 of 7 users" in refused(small_log(users=7))


def test_a_log_without_a_known_product_is_rejected() -> None:
    data = small_log()
    views = {name: JoinedView(view.versions, view.timestamp_us, np.full(3000, -1)) for name, view in data.views.items()}
    assert "none of its products has a feature row" in refused(data.with_views(views))


@pytest.mark.parametrize("view", ["product_embedding", "product_tags", "product_codes", "product_neighbours"])
def test_a_service_that_lacks_columns_of_a_view_is_rejected_with_their_names(view: str) -> None:
    data = small_log()
    whole = data.views[view]
    lacking = REQUIRED_COLUMNS[view][-1]
    part = replace(whole, versions=whole.versions.drop_columns([lacking]))
    assert f"gives {view} without {lacking};" in refused(data.with_views({**data.views, view: part}))
