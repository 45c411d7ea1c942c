"""Responses over Flight and HTTP hold what the reader reads."""

import math
import re

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.online import OnlineReader, Status
from consumers.serving.client import FlightClient, HttpClient, encode_request, matrix
from consumers.serving.response import ARROW, FeatureResponse, build_response, split_batch
from feature_repo.serving_limits import ServingLimits
from tests.consumers.serving.running import Served, serving
from tests.feature_repo.stores.online.feast_world import NOW

PRODUCTS = ["car", "none", "bear", "car"]


def fetch(
    served: Served, how: str, user: str | None = "7", ids: list[str] = PRODUCTS, service: str = "ranking"
) -> FeatureResponse:
    """Send one request with the client `how`."""
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
def test_responses_have_a_row_for_each_candidate_in_order_and_one_for_the_user(served: Served, how: str) -> None:
    response = fetch(served, how)
    rows = response.candidates
    assert rows.column("product_id").to_pylist() == PRODUCTS
    vectors = rows.column("looks__vector")
    assert vectors.type == pa.list_(pa.float32(), 2)
    assert vectors.to_pylist() == [[1, -1], None, [0.5, 0.25], [1, -1]]
    np.testing.assert_array_equal(matrix(vectors), [[1, -1], [math.nan] * 2, [0.5, 0.25], [1, -1]])
    assert rows.column("looks__colour").to_pylist() == ["red", None, "brown", "red"]
    assert rows.column("status__looks").to_pylist() == [Status.PRESENT, Status.ABSENT, Status.PRESENT, Status.PRESENT]
    assert rows.schema.field("status__looks").metadata[b"2"] == b"absent"
    assert rows.column("event_timestamp__looks").to_pylist() == [NOW, None, NOW, NOW]
    assert response.user is not None
    assert response.user.num_rows == 1
    assert response.user.column("taste__interest").to_pylist() == [[1.0, 2.0]]
    assert response.user.column("taste__age").to_pylist() == [31.0]
    assert response.user.column("status__season").to_pylist() == [Status.PRESENT]
    assert not set(response.user.schema.names) & set(rows.schema.names)


def test_both_protocols_return_the_same_bytes(served: Served) -> None:
    by_flight, by_http = fetch(served, "do_exchange"), fetch(served, "http")
    assert by_flight.candidates.equals(by_http.candidates, check_metadata=True)
    assert by_flight.user is not None
    assert by_flight.user.equals(by_http.user, check_metadata=True)


def test_a_service_without_user_features_needs_no_user(served: Served) -> None:
    for how in ("do_exchange", "do_get", "http"):
        response = fetch(served, how, user=None, service="products")
        assert response.user is None
        assert response.candidates.column("looks__price").to_pylist() == [9.99, None, 9.99, 9.99]


def test_json_responses_have_null_for_missing_values(served: Served) -> None:
    body = {"service": "ranking", "user_id": "8", "product_ids": ["bear", "none"]}
    response = httpx.post(f"{served.http}/v1/features", json=body)
    assert response.headers["content-type"] == "application/json"
    columns = response.json()
    assert columns["candidates"]["product_id"] == ["bear", "none"]
    assert columns["candidates"]["looks__vector"] == [[0.5, 0.25], None]
    assert columns["candidates"]["status__looks"] == ["present", "absent"]
    assert columns["user"]["status__taste"] == "absent"
    assert columns["user"]["taste__interest"] is None


def test_unknown_candidates_have_all_columns_with_nulls(served: Served) -> None:
    for how in ("do_exchange", "do_get", "http"):
        rows = fetch(served, how, ids=["none", "nobody"]).candidates
        assert rows.column("looks__vector").null_count == 2
        assert rows.column("looks__colour").null_count == 2


def test_a_stream_continues_after_a_request_with_only_unknown_candidates(served: Served) -> None:
    with FlightClient(served.flight, "ranking") as client:
        first = client.fetch("7", ["bear"]).candidates
        nothing = client.fetch("7", ["none"]).candidates
        last = client.fetch("7", ["bear"]).candidates
    assert nothing.schema == first.schema
    assert nothing.column("looks__vector").to_pylist() == [None]
    assert last.equals(first)


def test_the_client_reopens_a_stream_that_started_with_only_unknown_candidates(served: Served) -> None:
    with FlightClient(served.flight, "ranking") as client:
        client.fetch("7", ["none"])
        assert client.fetch("7", ["bear"]).candidates.column("looks__vector").to_pylist() == [[0.5, 0.25]]


class EndingServer(flight.FlightServerBase):
    """Ends its first stream at the second request, refuses the second stream, and answers on all later ones."""

    streams = 0

    def do_exchange(self, context, descriptor, reader, writer) -> None:
        self.streams += 1
        stream, batch = self.streams, pa.record_batch({"product_id": ["bear"]})
        for number, _ in enumerate(reader):
            if stream == 1 and number == 1:
                raise flight.FlightUnavailableError("the features have changed")
            if stream == 2:
                raise flight.FlightServerError("an error of this request alone")
            if number == 0:
                writer.begin(batch.schema)
            writer.write_batch(batch)


def test_a_stream_whose_second_attempt_fails_is_not_used_again() -> None:
    with EndingServer() as server, FlightClient(f"grpc://127.0.0.1:{server.port}", "ranking") as client:
        assert client.fetch(None, ["bear"]).candidates.num_rows == 1
        with pytest.raises(flight.FlightServerError, match="an error of this request alone"):
            client.fetch(None, ["bear"])
        assert client.fetch(None, ["bear"]).candidates.num_rows == 1
        assert server.streams == 3


def test_vectors_share_memory_with_the_reader(reader: OnlineReader) -> None:
    block = reader.fetch("products", ["bear", "car"], full_feature_names=True)
    response = build_response(block, ["bear", "car"], (), {})
    values = block.views["looks"].column("looks__vector").values
    assert np.shares_memory(matrix(response.candidates.column("looks__vector")), values)


def test_services_health_and_readiness_have_routes(served: Served) -> None:
    assert httpx.get(f"{served.http}/v1/services").json()["ranking"] == ["looks", "taste", "season"]
    assert httpx.get(f"{served.http}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{served.http}/readyz").json() == {"status": "ok"}
    openapi = httpx.get(f"{served.http}/openapi.json").json()
    assert ARROW in openapi["paths"]["/v1/features"]["post"]["responses"]["200"]["content"]


def test_no_message_of_a_long_response_exceeds_the_limit_of_other_languages_clients(reader: OnlineReader) -> None:
    ids = ["bear", *(f"{number:0250}" for number in range(15_000)), "car"]
    default = [("grpc.max_receive_message_length", 4 * 2**20)]
    with serving(reader, limits=ServingLimits(max_product_ids=20_000, deadline_seconds=20)) as served:
        with FlightClient(served.flight, "ranking") as client:
            response = [client.fetch("7", ids), client.fetch("7", ids[:1]), client.fetch("7", ids)][-1]
        ticket = flight.Ticket(encode_request("ranking", "7", ids))
        with flight.connect(served.flight, generic_options=default) as connection:
            chunks = list(connection.do_get(ticket))
    assert [chunk.app_metadata is None for chunk in chunks] == [False, *[True] * (len(chunks) - 1)]
    assert len(chunks) > 1
    assert pa.concat_batches([chunk.data for chunk in chunks]).equals(response.candidates)
    assert response.candidates.column("product_id").to_pylist() == ids
    assert response.candidates.column("looks__vector").to_pylist()[-1] == [1, -1]
    assert response.user is not None


@given(
    texts=st.lists(st.none() | st.text(max_size=40), max_size=60),
    start=st.integers(0, 10),
    max_bytes=st.integers(1, 600),
)
def test_a_split_batch_has_all_rows_in_order_and_no_slice_is_longer_than_allowed(
    texts: list[str | None], start: int, max_bytes: int
) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(len(texts) * 4, dtype=np.float32)), 4)
    batch = pa.record_batch({"text": pa.array(texts, pa.string()), "vector": vectors}).slice(start)
    parts = split_batch(batch, max_bytes)
    assert pa.concat_batches(parts).equals(batch)
    assert all(part.nbytes <= max_bytes or part.num_rows <= 1 for part in parts)


def test_the_root_and_docs_show_every_route_and_load_nothing(served: Served) -> None:
    pages = [httpx.get(f"{served.http}{path}") for path in ("/", "/docs")]
    assert pages[0].text == pages[1].text
    assert pages[0].headers["content-type"].startswith("text/html")
    paths = httpx.get(f"{served.http}/openapi.json").json()["paths"]
    assert "/v1/features" in paths
    assert all(f"<code>{path}</code>" in pages[0].text for path in paths)
    for link in re.findall(r'href="([^"]*)"', pages[0].text):
        assert httpx.get(f"{served.http}{link}").status_code == 200
    assert not re.search("src=|@import|http://|https://", pages[0].text)


def test_a_response_and_a_batch_print_as_a_few_lines(served: Served, reader: OnlineReader) -> None:
    response = fetch(served, "do_exchange", ids=PRODUCTS * 100)
    assert repr(response).startswith("FeatureResponse(400 candidates: product_id, looks__vector, looks__colour, ")
    batch = reader.fetch("ranking", {"user_id": "7", "product_id": PRODUCTS * 100}, now=NOW)
    assert repr(batch).splitlines() == [
        "FeatureBatch of 400 rows: 300 present, 100 absent",
        "  looks, 400 rows: 300 present, 100 absent: vector, colour",
        "  taste, 400 rows: 400 present: interest, age",
        "  season, 400 rows: 400 present: sale",
    ]
    assert repr(batch.views["taste"]) == "ViewRows(1 row: 1 present; interest, age)"
    assert repr(batch.views["taste"].rows) == "DecodedRows(1 row: 1 present; interest, age)"
    assert repr(batch.views["taste"].column("age")) == "Column(age, 1 values)"
