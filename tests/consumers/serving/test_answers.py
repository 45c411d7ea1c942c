"""What is answered, over Flight and over HTTP, is what the reader reads."""

import math

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest

from consumers.online import OnlineReader, Status
from consumers.serving.client import FlightClient, HttpClient, encode_request, matrix
from consumers.serving.response import ARROW, FeatureResponse, build_response
from tests.consumers.serving.running import Served
from tests.feature_repo.stores.online.feast_world import NOW

ASKED = ["car", "none", "bear", "car"]


def ask(
    served: Served, how: str, user: str | None = "7", ids: list[str] = ASKED, service: str = "ranking"
) -> FeatureResponse:
    """One request, by each of the ways there are."""
    if how == "do_exchange":
        with FlightClient(served.flight, service) as client:
            return client.fetch(user, ids)
    if how == "do_get":
        with flight.connect(served.flight) as client:
            chunk = client.do_get(flight.Ticket(encode_request(service, user, ids))).read_chunk()
            own = pa.ipc.open_stream(chunk.app_metadata).read_next_batch() if chunk.app_metadata else None
            return FeatureResponse(chunk.data, own)
    client = HttpClient(served.http)
    try:
        return client.fetch(service, user, ids)
    finally:
        client.close()


@pytest.mark.parametrize("how", ["do_exchange", "do_get", "http"])
def test_a_row_for_each_candidate_in_the_order_asked_and_the_user_once(served: Served, how: str) -> None:
    found = ask(served, how)
    rows = found.candidates
    assert rows.column("product_id").to_pylist() == ASKED
    vectors = rows.column("looks__vector")
    assert vectors.type == pa.list_(pa.float32(), 2)
    assert vectors.to_pylist() == [[1, -1], None, [0.5, 0.25], [1, -1]]
    np.testing.assert_array_equal(matrix(vectors), [[1, -1], [math.nan] * 2, [0.5, 0.25], [1, -1]])
    assert rows.column("looks__colour").to_pylist() == ["red", None, "brown", "red"]
    assert rows.column("status__looks").to_pylist() == [Status.PRESENT, Status.ABSENT, Status.PRESENT, Status.PRESENT]
    assert rows.schema.field("status__looks").metadata[b"2"] == b"absent"
    assert rows.column("event_timestamp__looks").to_pylist() == [NOW, None, NOW, NOW]
    assert found.user is not None
    assert found.user.num_rows == 1
    assert found.user.column("taste__interest").to_pylist() == [[1.0, 2.0]]
    assert found.user.column("taste__age").to_pylist() == [31.0]
    assert found.user.column("status__season").to_pylist() == [Status.PRESENT]
    assert not set(found.user.schema.names) & set(rows.schema.names)


def test_both_protocols_give_the_same_bytes(served: Served) -> None:
    by_flight, by_http = ask(served, "do_exchange"), ask(served, "http")
    assert by_flight.candidates.equals(by_http.candidates, check_metadata=True)
    assert by_flight.user is not None
    assert by_flight.user.equals(by_http.user, check_metadata=True)


def test_a_service_without_features_of_the_user_needs_none(served: Served) -> None:
    for how in ("do_exchange", "do_get", "http"):
        found = ask(served, how, user=None, service="products")
        assert found.user is None
        assert found.candidates.column("looks__price").to_pylist() == [9.99, None, 9.99, 9.99]


def test_people_get_json_without_a_nan(served: Served) -> None:
    asked = {"service": "ranking", "user_id": "8", "product_ids": ["bear", "none"]}
    found = httpx.post(f"{served.http}/v1/features", json=asked)
    assert found.headers["content-type"] == "application/json"
    said = found.json()
    assert said["candidates"]["product_id"] == ["bear", "none"]
    assert said["candidates"]["looks__vector"] == [[0.5, 0.25], None]
    assert said["candidates"]["status__looks"] == ["present", "absent"]
    assert said["user"]["status__taste"] == "absent"
    assert said["user"]["taste__interest"] is None


def test_of_candidates_that_are_all_unknown_the_columns_come_all_the_same(served: Served) -> None:
    for how in ("do_exchange", "do_get", "http"):
        rows = ask(served, how, ids=["none", "nobody"]).candidates
        assert rows.column("looks__vector").null_count == 2
        assert rows.column("looks__colour").null_count == 2


def test_an_open_stream_goes_on_after_candidates_of_which_none_is_known(served: Served) -> None:
    with FlightClient(served.flight, "ranking") as client:
        first = client.fetch("7", ["bear"]).candidates
        nothing = client.fetch("7", ["none"]).candidates
        last = client.fetch("7", ["bear"]).candidates
    assert nothing.schema == first.schema
    assert nothing.column("looks__vector").to_pylist() == [None]
    assert last.equals(first)


def test_a_stream_that_began_with_nothing_known_is_opened_anew_by_the_client(served: Served) -> None:
    with FlightClient(served.flight, "ranking") as client:
        client.fetch("7", ["none"])
        assert client.fetch("7", ["bear"]).candidates.column("looks__vector").to_pylist() == [[0.5, 0.25]]


def test_a_vectors_values_are_the_readers_own_memory(reader: OnlineReader) -> None:
    block = reader.fetch("products", ["bear", "car"], full_feature_names=True)
    response = build_response(block, ["bear", "car"], (), {})
    held = block.views["looks"].column("looks__vector").values
    assert np.shares_memory(matrix(response.candidates.column("looks__vector")), held)


def test_services_and_health_are_told(served: Served) -> None:
    assert httpx.get(f"{served.http}/v1/services").json()["ranking"] == ["looks", "taste", "season"]
    assert httpx.get(f"{served.http}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{served.http}/readyz").json() == {"status": "ok"}
    form = httpx.get(f"{served.http}/openapi.json").json()
    assert ARROW in form["paths"]["/v1/features"]["post"]["responses"]["200"]["content"]
