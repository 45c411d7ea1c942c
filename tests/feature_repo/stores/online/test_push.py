"""What Feast's own suites ask of a push and of on-demand views, and the tests beside this one do not."""

import asyncio
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import FeatureStore
from feast.data_source import PushMode

from tests.feature_repo.stores.online.feast_world import DAY, NOW, write
from tests.feature_repo.stores.online.test_feast_store import BEAR


def pushed(store: FeatureStore, product: str) -> list[Any]:
    return store.get_online_features(["pushed:stock"], [{"product_id": product}]).to_dict()["stock"]


@pytest.mark.parametrize("to", [PushMode.ONLINE_AND_OFFLINE, PushMode.OFFLINE, PushMode.ONLINE])
def test_a_push_reaches_the_sides_it_names_and_no_other(own_store: FeatureStore, to: PushMode) -> None:
    rows = pd.DataFrame([{"product_id": "bear", "stock": 4, "event_timestamp": NOW, "created_timestamp": NOW}])
    table = Path(own_store.config.repo_path) / "offline" / "pushed.parquet"
    table.parent.mkdir(exist_ok=True)
    rows.assign(product_id="car").to_parquet(table)
    own_store.push("pushes", rows, to=to)
    asked = pd.DataFrame({"product_id": ["bear", "car"], "event_timestamp": [NOW + DAY] * 2})
    joined = own_store.get_historical_features(asked, ["pushed:stock"]).to_df()["stock"]
    assert joined.notna().tolist() == [to != PushMode.ONLINE, True]
    assert pushed(own_store, "bear") == [None if to == PushMode.OFFLINE else 4]


def test_an_older_push_does_not_take_a_newer_ones_place(store: FeatureStore) -> None:
    for stock, when in ((4, NOW), (9, NOW - DAY)):
        rows = [{"product_id": "bear", "stock": stock, "event_timestamp": when, "created_timestamp": NOW}]
        store.push("pushes", pd.DataFrame(rows))
    assert pushed(store, "bear") == [4]


def test_on_demand_views_answer_alike_with_full_names_and_without_blocking(store: FeatureStore) -> None:
    write(store, "looks", [BEAR | {"clicks": 8}])
    rows = [{"product_id": "bear", "position": 1}, {"product_id": "none", "position": 1}]
    wanted = ["attention:clicks_by_position", "looks:colour"]
    at_once = store.get_online_features(wanted, rows, full_feature_names=True).to_dict()
    awaited = asyncio.run(store.get_online_features_async(wanted, rows, full_feature_names=True)).to_dict()
    assert at_once["attention__clicks_by_position"][0] == 4.0
    assert at_once["looks__colour"] == ["brown", None]
    assert str(awaited) == str(at_once)
