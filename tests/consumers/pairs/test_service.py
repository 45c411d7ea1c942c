"""Pairs over HTTP and Flight: the answers, every bad input in one line, limits, and many callers at once."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis import GenerationMode

from consumers.online import OnlineReader
from consumers.serving.client import FlightClient, HttpClient, PairClient
from consumers.serving.response import ARROW
from feature_repo.auth import ServerAccess
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.pairs.verifier import REASONS
from feature_repo.serving_limits import PairLimits
from tests.consumers.pairs.world import PairWorld
from tests.consumers.serving.running import TOKEN, Served, serving
from tests.consumers.serving.test_fuzz import to_httpx
from tests.consumers.serving.test_refusals import reveals_internals

BY_ID = {"left": {"product_id": "p0"}, "right": {"product_id": "p1"}}


def post(served: Served, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{served.http}/v1/pairs", content=content, headers=headers, timeout=30)


def png(width: int, height: int) -> bytes:
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(content, "png")
    return content.getvalue()


def bomb(side: int) -> bytes:
    """Return a PNG whose header gives many pixels and whose data is short."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def sent_product(world: PairWorld, row: int) -> dict[str, Any]:
    stored = world.products.slice(row, 1).to_pylist()[0]
    facts = {name: stored[name] for name in ("title", "brand", "price", "category") if stored[name] is not None}
    return facts | {"picture": encode((world.folder / f"p{row}.png").read_bytes())}


def test_the_answer_has_probability_reasons_and_versions_in_the_order_of_the_request(
    served_pairs: Served, pair_world: PairWorld
) -> None:
    pairs = [
        BY_ID,
        {"left": {"product_id": "p0"}, "right": sent_product(pair_world, 80)},
        {"left": sent_product(pair_world, 0), "right": sent_product(pair_world, 1)},
        {"left": {"title": "奶瓶 120ml"}, "right": {"title": "奶瓶", "attributes": {"容量": "240ml"}}},
    ]
    response = post(served_pairs, {"pairs": pairs})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["encoder_version"] == pair_world.encoder.encoder_version
    assert answer["verifier_version"] == pair_world.verifier.version
    same, different, sent, vetoed = answer["pairs"]
    assert (same["is_same"], different["is_same"], vetoed["is_same"]) == (True, False, False)
    assert sent["probability"] == pytest.approx(same["probability"], abs=0.02)
    assert set(same["reasons"]) == set(REASONS)
    assert (vetoed["vetoes"], vetoed["reasons"]["measures"], vetoed["probability"]) == (["volume"], None, 0)


def test_arrow_flight_and_json_give_the_same_rows(served_pairs: Served, pair_world: PairWorld) -> None:
    pairs = [BY_ID, {"left": {"product_id": "p4"}, "right": {"product_id": "p60"}}]
    json_pairs = post(served_pairs, {"pairs": pairs}).json()["pairs"]
    body = post(served_pairs, {"pairs": pairs}, accept=ARROW).content
    (over_http,) = pa.ipc.open_stream(body)
    with PairClient(served_pairs.flight) as client:
        over_flight = client.score(pairs)
        again = client.score(pairs[:1])  # on the same stream
    assert over_flight.equals(over_http)
    assert again.equals(over_http.slice(0, 1))
    assert over_http["probability"].to_pylist() == pytest.approx([one["probability"] for one in json_pairs])
    client = HttpClient(served_pairs.http)
    assert client.score_pairs(pairs).equals(over_http)
    client.close()


BAD = {
    "not JSON": (b"{", 400, "Invalid JSON"),
    "no pairs": ({"pairs": []}, 400, "pairs: "),
    "an unknown field": ({"pairs": [BY_ID], "x": 1}, 400, "x: Extra inputs"),
    "too many pairs": ({"pairs": [BY_ID] * 33}, 400, "pairs: 33 pairs; a request may have at most 32"),
    "an unknown id": (
        {"pairs": [BY_ID, {"left": {"product_id": "nobody"}, "right": {"product_id": "p0"}}]},
        404,
        "pairs.1.left.product_id: there is no such product in the index of `produce groups`",
    ),
    "id and title": (
        {"pairs": [{"left": {"product_id": "p0", "title": "x"}, "right": {"product_id": "p0"}}]},
        400,
        "pairs.0.left: both product_id and title; give the id alone, or title and picture",
    ),
    "neither": (
        {"pairs": [{"left": {"product_id": "p0"}, "right": {"brand": "x"}}]},
        400,
        "pairs.0.right: no product_id, title or picture",
    ),
    "no picture": (
        {"pairs": [{"left": {"picture": encode(b"hello")}, "right": {"title": "x"}}]},
        400,
        "pairs.0.left.picture: not an image of a known format",
    ),
    "a cut picture": (
        {"pairs": [{"left": {"picture": encode(png(90, 90)[:9_000])}, "right": {"title": "x"}}]},
        400,
        "pairs.0.left.picture: image is truncated or damaged",
    ),
    "no base64": (
        {"pairs": [{"left": {"picture": "!"}, "right": {"title": "x"}}]},
        400,
        "pairs.0.left.picture: Data should be valid base64",
    ),
    "a bomb": (
        {"pairs": [{"left": {"picture": encode(bomb(4_001))}, "right": {"title": "x"}}]},
        400,
        "pairs.0.left.picture: image is too large: 4001 x 4001 pixels, at most 16,000,000 are decoded",
    ),
    "a bomb that Pillow refuses": (
        {"pairs": [{"left": {"picture": encode(bomb(30_000))}, "right": {"title": "x"}}]},
        400,
        "pairs.0.left.picture: image is too large",
    ),
    "a long picture": (
        {"pairs": [{"left": {"picture": encode(bytes(2**21 + 1))}, "right": {"title": "x"}}]},
        400,
        "pairs.0.left.picture: 2,097,153 bytes; a picture may have at most 2,097,152",
    ),
    "a price of 0": (
        {"pairs": [{"left": {"title": "x", "price": 0}, "right": {"title": "x"}}]},
        400,
        "pairs.0.left.price: Input should be greater than 0",
    ),
    "a long body": (b" " * (8 * 2**20 + 1), 413, "a request body may have at most 8,388,608 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_names_the_place(name: str, served_pairs: Served) -> None:
    body, status, message = BAD[name]
    response = post(served_pairs, body)
    assert response.status_code == status
    assert message in response.json()["message"]
    assert "\n" not in response.json()["message"]
    if status != 413:
        with PairClient(served_pairs.flight) as client, pytest.raises(flight.FlightError, match=r"INVALID|NOT_FOUND"):
            client.request(body if isinstance(body, bytes) else json.dumps(body).encode(), 1)


def test_other_routes_keep_their_shorter_limit(served_pairs: Served) -> None:
    response = httpx.post(f"{served_pairs.http}/v1/features", content=b" " * 4_000_000)
    assert response.status_code == 413


def test_the_clients_raise_the_errors_of_the_project(served_pairs: Served) -> None:
    client = HttpClient(served_pairs.http)
    with pytest.raises(NotFoundError, match="no such product"):
        client.score_pairs([{"left": {"product_id": "x"}, "right": {"product_id": "x"}}])
    with pytest.raises(InvalidInputError, match="pairs"):
        client.score_pairs([])
    client.close()


def test_a_request_is_logged_and_counted_without_what_it_holds(served_pairs: Served) -> None:
    before = sample(served_pairs, "vitrine_serving_pairs_total")
    secret = {"title": "a secret title", "picture": encode(png(30, 30))}
    response = post(served_pairs, {"pairs": [{"left": secret, "right": secret}] * 2}, **{"x-request-id": "mine"})
    assert response.status_code == 200
    (line,) = [line for line in served_pairs.lines() if line["id"] == "mine"]
    assert (line["service"], line["rows"], line["status"]) == ("pairs", 2, "OK")
    assert "secret" not in served_pairs.log.getvalue()
    assert sample(served_pairs, "vitrine_serving_pairs_total") == before + 2
    assert sample(served_pairs, "vitrine_serving_pair_batches_total") > 0


def sample(served: Served, name: str) -> float:
    lines = httpx.get(f"{served.http}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_many_callers_at_once_each_get_their_own_answer(served_pairs: Served, pair_world: PairWorld) -> None:
    rng = np.random.default_rng(0)
    requests = [
        [
            {"left": {"product_id": f"p{a}"}, "right": sent_product(pair_world, int(b))}
            for a, b in rng.integers(0, 90, (int(rng.integers(1, 4)), 2)).tolist()
        ]
        for _ in range(12)
    ]

    def ask(pairs: list[Any]) -> list[float]:
        return [one["probability"] for one in post(served_pairs, {"pairs": pairs}).json()["pairs"]]

    alone = [ask(pairs) for pairs in requests]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, requests))
    for expected, actual in zip(alone, together, strict=True):
        assert actual == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def strict(reader: OnlineReader, pair_world: PairWorld) -> Iterator[Served]:
    """A server with a token, that answers one request for pairs at a time and lets none wait."""
    limits = PairLimits(workers=1, queue_size=0)
    with serving(reader, access=ServerAccess(token=TOKEN), open_pairs=pair_world.open_executor(limits)) as running:
        yield running


def test_pairs_need_the_token(strict: Served) -> None:
    assert post(strict, {"pairs": [BY_ID]}).status_code == 401
    assert post(strict, {"pairs": [BY_ID]}, authorization=f"Bearer {TOKEN}").status_code == 200
    with PairClient(strict.flight) as client, pytest.raises(flight.FlightUnauthenticatedError):
        client.score([BY_ID])
    with PairClient(strict.flight, token=TOKEN) as client:
        assert client.score([BY_ID]).num_rows == 1


def test_more_requests_than_the_queue_holds_are_refused_at_once(strict: Served, pair_world: PairWorld) -> None:
    body = {"pairs": [{"left": sent_product(pair_world, 0), "right": sent_product(pair_world, 1)}] * 32}
    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(lambda _: post(strict, body, authorization=f"Bearer {TOKEN}").status_code, range(6)))
    assert set(statuses) == {200, 429}


def test_a_server_without_an_export_has_no_such_route(served: Served) -> None:
    assert post(served, {"pairs": [BY_ID]}).status_code == 404
    with PairClient(served.flight) as client, pytest.raises(flight.FlightServerError, match="UNIMPLEMENTED"):
        client.score([BY_ID])


def test_features_and_pairs_are_served_side_by_side(served_pairs: Served) -> None:
    with FlightClient(served_pairs.flight, "products") as client:
        assert client.fetch(None, ["bear"]).candidates.num_rows == 1
    paths = httpx.get(f"{served_pairs.http}/openapi.json").json()["paths"]
    assert {"/v1/features", "/v1/pairs"} <= set(paths)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_random_request_gets_a_5xx_or_a_message_about_internals(served_pairs: Served, mode: GenerationMode) -> None:
    openapi = httpx.get(f"{served_pairs.http}/openapi.json").json()
    openapi["paths"] = {"/v1/pairs": openapi["paths"]["/v1/pairs"]}
    schema = openapi["paths"]["/v1/pairs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    del schema["properties"]["deadline_ms"]  # a deadline of a millisecond is rightly answered with 504
    (operation,) = schemathesis.openapi.from_dict(openapi).get_all_operations()
    documented = {*operation.ok().definition.raw["responses"], "401", "413"}
    statuses: set[int] = set()

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.ok().as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        response = httpx.request(**to_httpx(case, served_pairs.http), timeout=30)
        statuses.add(response.status_code)
        assert response.status_code < 500, response.text
        assert not reveals_internals(response.text)
        assert str(response.status_code) in documented

    send()
    assert statuses & {400, 404, 405, 406, 415} if mode is GenerationMode.NEGATIVE else statuses
