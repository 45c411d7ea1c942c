"""What Feast's own suites ask of its HTTP server, on our online stores: `feast serve` is its application."""

from collections.abc import Iterator
from typing import Any

import pytest
from feast import FeatureStore
from feast.feature_server import get_app
from starlette.testclient import TestClient

from tests.feature_repo.stores.online.feast_world import DAY, NOW, write
from tests.feature_repo.stores.online.test_feast_store import BEAR, CAR


@pytest.fixture
def client(store: FeatureStore) -> Iterator[TestClient]:
    with TestClient(get_app(store), raise_server_exceptions=False) as opened:
        yield opened


def answered(client: TestClient, **question: Any) -> dict[str, list[tuple[Any, str]]]:
    """Each column's values and statuses."""
    response = client.post("/get-online-features", json=question)
    assert response.status_code == 200, response.text
    answer = response.json()
    names = answer["metadata"]["feature_names"]
    return {
        name: list(zip(column["values"], column["statuses"], strict=True))
        for name, column in zip(names, answer["results"], strict=True)
    }


def test_features_come_over_http_with_their_statuses(store: FeatureStore, client: TestClient) -> None:
    write(store, "looks", [BEAR, CAR | {"event_timestamp": NOW - 20 * DAY}])
    found = answered(
        client, features=["looks:vector", "looks:title"], entities={"product_id": ["bear", "car", "nothing"]}
    )
    assert [value for value, _ in found["product_id"]] == ["bear", "car", "nothing"]
    assert found["vector"] == [([0.5, 0.25], "PRESENT"), (None, "OUTSIDE_MAX_AGE"), (None, "NOT_FOUND")]
    assert found["title"][0] == ("毛绒 bear", "PRESENT")


def test_a_service_and_what_is_computed_on_demand_come_over_http(store: FeatureStore, client: TestClient) -> None:
    write(store, "looks", [BEAR | {"clicks": 8}])
    write(store, "taste", [{"user_id": 7, "interest": [0.5], "age": 3.5}])
    found = answered(
        client, feature_service="ranking", entities={"product_id": ["bear"], "user_id": [7]}, full_feature_names=True
    )
    assert found["looks__colour"] == [("brown", "PRESENT")]
    assert found["taste__age"] == [(3.5, "PRESENT")]
    assert found["season__sale"] == [(None, "NOT_FOUND")]
    computed = answered(
        client, features=["attention:clicks_by_position"], entities={"product_id": ["bear"], "position": [1]}
    )
    assert computed["clicks_by_position"] == [(4.0, "PRESENT")]


def test_what_is_pushed_and_written_over_http_is_served(store: FeatureStore, client: TestClient) -> None:
    stamps = {"event_timestamp": [NOW.isoformat()], "created_timestamp": [NOW.isoformat()]}
    row = {"product_id": ["bear"], "stock": [4], **stamps}
    pushed = client.post("/push", json={"push_source_name": "pushes", "df": row, "to": "online"})
    assert pushed.status_code == 200, pushed.text
    assert answered(client, features=["pushed:stock"], entities={"product_id": ["bear"]})["stock"] == [(4, "PRESENT")]
    taste = {"user_id": [7], "interest": [[0.5, 1.0]], "age": [3.5], **stamps}
    written = client.post("/write-to-online-store", json={"feature_view_name": "taste", "df": taste})
    assert written.status_code == 200, written.text
    found = answered(client, features=["taste:interest"], entities={"user_id": [7]})
    assert found["interest"] == [([0.5, 1.0], "PRESENT")]


def test_what_there_is_not_is_said_over_http(client: TestClient) -> None:
    for question, said in (
        ({"features": ["nothing:title"], "entities": {"product_id": ["bear"]}}, "nothing"),
        ({"features": ["looks:nothing"], "entities": {"product_id": ["bear"]}}, "nothing"),
        ({"features": ["looks:title"], "entities": {"user_id": [1]}}, "product_id"),
    ):
        response = client.post("/get-online-features", json=question)
        assert response.status_code >= 400
        assert said in response.text
