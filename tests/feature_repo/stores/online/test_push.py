"""Push and on-demand views: cases of Feast's own test suites that the other tests here do not have."""

import asyncio
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import FeatureStore
from feast.data_source import PushMode

from tests.feature_repo.stores.online.feast_world import BEAR, DAY, NOW, write


def online_stock(store: FeatureStore, product: str) -> list[Any]:
    return store.get_online_features(["pushed:stock"], [{"product_id": product}]).to_dict()["stock"]


@pytest.mark.parametrize("to", [PushMode.ONLINE_AND_OFFLINE, PushMode.OFFLINE, PushMode.ONLINE])
def test_a_push_writes_only_to_the_stores_that_it_names(own_store: FeatureStore, to: PushMode) -> None:
    rows = pd.DataFrame([{"product_id": "bear", "stock": 4, "event_timestamp": NOW, "created_timestamp": NOW}])
    table = Path(own_store.config.repo_path) / "offline" / "pushed.parquet"
    table.parent.mkdir(exist_ok=True)
    rows.assign(product_id="car").to_parquet(table)
    own_store.push("pushes", rows, to=to)
    entity_rows = pd.DataFrame({"product_id": ["bear", "car"], "event_timestamp": [NOW + DAY] * 2})
    joined = own_store.get_historical_features(entity_rows, ["pushed:stock"]).to_df()["stock"]
    assert joined.notna().tolist() == [to != PushMode.ONLINE, True]
    assert online_stock(own_store, "bear") == [None if to == PushMode.OFFLINE else 4]


def test_an_older_push_does_not_replace_a_newer_one(store: FeatureStore) -> None:
    for stock, when in ((4, NOW), (9, NOW - DAY)):
        rows = [{"product_id": "bear", "stock": stock, "event_timestamp": when, "created_timestamp": NOW}]
        store.push("pushes", pd.DataFrame(rows))
    assert online_stock(store, "bear") == [4]


def test_on_demand_views_with_full_names_are_the_same_sync_and_async(store: FeatureStore) -> None:
    write(store, "looks", [BEAR | {"clicks": 8}])
    rows = [{"product_id": "bear", "position": 1}, {"product_id": "none", "position": 1}]
    features = ["attention:clicks_by_position", "looks:colour"]
    sync_result = store.get_online_features(features, rows, full_feature_names=True).to_dict()
    async_result = asyncio.run(store.get_online_features_async(features, rows, full_feature_names=True)).to_dict()
    assert sync_result["attention__clicks_by_position"][0] == 4.0
    assert sync_result["looks__colour"] == ["brown", None]
    assert str(async_result) == str(sync_result)
