"""Feast's HTTP server (`feast serve`) on our online stores: cases of Feast's own test suites."""

from collections.abc import Iterator
from typing import Any

import pytest
from feast import FeatureStore
from feast.feature_server import get_app
from starlette.testclient import TestClient

from tests.feature_repo.stores.online.feast_world import BEAR, CAR, DAY, NOW, write


@pytest.fixture
def client(store: FeatureStore) -> Iterator[TestClient]:
    with TestClient(get_app(store), raise_server_exceptions=False) as opened:
        yield opened


def post_request(client: TestClient, **request: Any) -> dict[str, list[tuple[Any, str]]]:
    """Return values and statuses of each column."""
    response = client.post("/get-online-features", json=request)
    assert response.status_code == 200, response.text
    body = response.json()
    names = body["metadata"]["feature_names"]
    return {
        name: list(zip(column["values"], column["statuses"], strict=True))
        for name, column in zip(names, body["results"], strict=True)
    }


def test_features_are_returned_over_http_with_their_statuses(store: FeatureStore, client: TestClient) -> None:
    write(store, "looks", [BEAR, CAR | {"event_timestamp": NOW - 20 * DAY}])
    columns = post_request(
        client, features=["looks:vector", "looks:title"], entities={"product_id": ["bear", "car", "nothing"]}
    )
    assert [value for value, _ in columns["product_id"]] == ["bear", "car", "nothing"]
    assert columns["vector"] == [([0.5, 0.25], "PRESENT"), ([1.0, -1.0], "OUTSIDE_MAX_AGE"), (None, "NOT_FOUND")]
    assert columns["title"][0] == ("毛绒 bear", "PRESENT")


def test_a_service_and_an_on_demand_view_are_returned_over_http(store: FeatureStore, client: TestClient) -> None:
    write(store, "looks", [BEAR | {"clicks": 8}])
    write(store, "taste", [{"user_id": 7, "interest": [0.5], "age": 3.5}])
    columns = post_request(
        client, feature_service="ranking", entities={"product_id": ["bear"], "user_id": [7]}, full_feature_names=True
    )
    assert columns["looks__colour"] == [("brown", "PRESENT")]
    assert columns["taste__age"] == [(3.5, "PRESENT")]
    assert columns["season__sale"] == [(None, "NOT_FOUND")]
    computed = post_request(
        client, features=["attention:clicks_by_position"], entities={"product_id": ["bear"], "position": [1]}
    )
    assert computed["clicks_by_position"] == [(4.0, "PRESENT")]


def test_rows_pushed_and_written_over_http_are_served(store: FeatureStore, client: TestClient) -> None:
    stamps = {"event_timestamp": [NOW.isoformat()], "created_timestamp": [NOW.isoformat()]}
    row = {"product_id": ["bear"], "stock": [4], **stamps}
    pushed = client.post("/push", json={"push_source_name": "pushes", "df": row, "to": "online"})
    assert pushed.status_code == 200, pushed.text
    assert post_request(client, features=["pushed:stock"], entities={"product_id": ["bear"]})["stock"] == [
        (4, "PRESENT")
    ]
    taste = {"user_id": [7], "interest": [[0.5, 1.0]], "age": [3.5], **stamps}
    written = client.post("/write-to-online-store", json={"feature_view_name": "taste", "df": taste})
    assert written.status_code == 200, written.text
    columns = post_request(client, features=["taste:interest"], entities={"user_id": [7]})
    assert columns["interest"] == [([0.5, 1.0], "PRESENT")]


def test_a_missing_view_feature_or_join_key_is_an_error_over_http(client: TestClient) -> None:
    for request, name in (
        ({"features": ["nothing:title"], "entities": {"product_id": ["bear"]}}, "nothing"),
        ({"features": ["looks:nothing"], "entities": {"product_id": ["bear"]}}, "nothing"),
        ({"features": ["looks:title"], "entities": {"user_id": [1]}}, "product_id"),
    ):
        response = client.post("/get-online-features", json=request)
        assert response.status_code >= 400
        assert name in response.text
