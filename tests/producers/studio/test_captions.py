"""`POST /v1/captions`: what lines state is sure, whatever is asked for; bad requests get one line."""

import base64
import json
import re
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from feature_repo.auth import ServerAccess
from feature_repo.serving_limits import CaptionLimits
from producers.captions.facts import find_statements
from tests.producers.studio.world import (
    COLOURS,
    RunningStudio,
    StudioWorld,
    draw,
    encode_png,
    make_options,
    serving_studio,
)

VOCABULARY = {"colour": {value: [word, f"the {value} one"] for value, (word, _) in COLOURS.items()}}


def ask(studio: RunningStudio, **request: object) -> httpx.Response:
    return httpx.post(f"{studio.url}/v1/captions", json=request, timeout=30)


def encode(image: Image.Image) -> str:
    return base64.b64encode(encode_png(image)).decode()


@pytest.mark.parametrize("style", ["plain", "lively"])
@pytest.mark.parametrize("number", range(4))
def test_lines_of_a_product_state_its_sure_colour_and_how_sure_it_is(
    studio: RunningStudio, style: str, number: int
) -> None:
    answer = ask(studio, product_id=f"p{number:03}", style=style, count=3, seed=5).raise_for_status().json()
    colour = list(COLOURS)[number]
    assert answer["missing_reason"] is None
    assert 1 <= len(answer["candidates"]) <= 3
    scores = [line["score"] for line in answer["candidates"]]
    assert scores == sorted(scores, reverse=True)
    for line in answer["candidates"]:
        assert find_statements(line["text"], VOCABULARY) == {("colour", colour)}
        (fact,) = line["stated"]
        assert (fact["attribute"], fact["value"], fact["source"]) == ("colour", colour, "tags")
        assert 0.9 <= fact["probability"] <= 1
    assert answer["style"] == style
    assert answer["encoder_version"].startswith("encoder@")


@pytest.mark.parametrize("colour", COLOURS)
def test_a_picture_that_is_no_product_is_tagged_as_a_stream_tags_it(studio: RunningStudio, colour: str) -> None:
    answer = ask(studio, picture=encode(draw(colour, 1_000)), language="en").raise_for_status().json()
    assert [line["text"] for line in answer["candidates"]] == [f"the {colour} one"]
    assert answer["sure"][0]["value"] == colour


def test_an_unsure_picture_gets_no_line_and_the_reason(studio: RunningStudio) -> None:
    halves = Image.new("RGB", (40, 40), (135, 110, 110))
    halves.paste((40, 130, 150), (20, 0, 40, 40))
    answer = ask(studio, picture=encode(halves)).raise_for_status().json()
    sure = [fact for fact in answer["sure"] if fact["probability"] >= 0.9]
    assert answer["sure"] == sure
    if not sure:
        assert (answer["candidates"], answer["missing_reason"]) == ([], "no attribute is at least 90% sure")


def test_what_the_caller_states_counts_as_sure_and_replaces_the_tags(studio: RunningStudio) -> None:
    given = {"colour": "green", "child_gender": "girl"}
    answer = ask(studio, product_id="p000", attributes=given, count=2).raise_for_status().json()
    assert {(fact["attribute"], fact["value"], fact["source"]) for fact in answer["sure"]} == {
        ("colour", "green", "caller"),
        ("child_gender", "girl", "caller"),
    }
    assert answer["candidates"][0]["text"] == "女童绿色"


def test_a_form_with_a_file_gets_what_json_gets(studio: RunningStudio) -> None:
    picture = encode_png(draw("blue", 7))
    as_json = ask(studio, picture=base64.b64encode(picture).decode(), title="蓝色连衣裙", length=30).json()
    fields = {"title": "蓝色连衣裙", "length": "30", "style": ""}
    form = httpx.post(f"{studio.url}/v1/captions", data=fields, files={"picture": ("a.png", picture)}, timeout=30)
    assert form.raise_for_status().json() == as_json


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
def test_progress_is_streamed_and_ends_with_the_answer(studio: RunningStudio, accept: str) -> None:
    expected = ask(studio, product_id="p002").json()
    response = httpx.post(
        f"{studio.url}/v1/captions", json={"product_id": "p002"}, headers={"accept": accept}, timeout=30
    )
    assert response.headers["content-type"].startswith(accept)
    if accept == "application/x-ndjson":
        events = [json.loads(line) for line in response.text.splitlines()]
        names = [event.pop("event") for event in events]
    else:
        blocks = [block.splitlines() for block in response.text.strip().split("\n\n")]
        names = [block[0].removeprefix("event: ") for block in blocks]
        events = [json.loads(block[1].removeprefix("data: ")) for block in blocks]
    assert names == ["queued", "prepared", "started", "done"]
    assert events[0] == {"place": 1}
    assert events[-1] == expected


def test_an_error_after_the_stream_has_begun_is_its_last_event(studio: RunningStudio) -> None:
    response = httpx.post(
        f"{studio.url}/v1/captions", json={"product_id": "nobody"}, headers={"accept": "application/x-ndjson"}
    )
    last = json.loads(response.text.splitlines()[-1])
    assert (response.status_code, last["event"], last["error"]) == (200, "error", "NOT_FOUND")


def make_bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in a few kilobytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)

    header = (20_000).to_bytes(4) * 2 + bytes([1, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(2_501) * 20_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


BAD = {
    "a bomb": (400, {"picture": base64.b64encode(make_bomb()).decode()}, "picture: .*too large"),
    "no picture": (400, {"picture": base64.b64encode(b"not a picture").decode()}, "picture: .*not an image"),
    "a cut picture": (400, {"picture": base64.b64encode(encode_png(draw("red"))[:90]).decode()}, "picture: "),
    "an unknown product": (404, {"product_id": "nobody"}, "no product 'nobody'"),
    "a product without a picture": (404, {"product_id": "p005"}, "has no picture"),
    "both": (400, {"product_id": "p000", "picture": "aGk="}, "both of product_id and picture"),
    "neither": (400, {"style": "plain"}, "neither of product_id and picture"),
    "an unknown field": (400, {"product_id": "p000", "colour": "red"}, "colour: Extra inputs"),
    "an unknown style": (400, {"product_id": "p000", "style": "loud"}, "style: "),
    "too many lines": (400, {"product_id": "p000", "count": 17}, "count: 17 lines; at most 16"),
    "no length": (400, {"product_id": "p000", "length": 0}, "length: "),
    "a long title": (400, {"picture": encode(draw("red")), "title": "x" * 10_000}, "title: 10,000 characters"),
    "an attribute that is no tag": (400, {"product_id": "p000", "attributes": {"claim": "free shipping"}}, "no tag"),
    "an unknown value": (400, {"product_id": "p000", "attributes": {"colour": "mauve"}}, "'mauve' has no words"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_one_clear_line(studio: RunningStudio, case: str) -> None:
    status, request, message = BAD[case]
    response = ask(studio, **request)
    assert response.status_code == status
    text = response.json()["message"]
    assert "\n" not in text
    assert re.search(message, text), text


def test_what_is_not_json_and_a_body_that_is_too_long_are_refused(studio: RunningStudio) -> None:
    assert httpx.post(f"{studio.url}/v1/captions", content=b"{").status_code == 400
    assert httpx.post(f"{studio.url}/v1/captions", content=bytes(13 * 2**20)).status_code == 413
    broken = httpx.post(
        f"{studio.url}/v1/captions", content=b"nothing", headers={"content-type": "multipart/form-data"}
    )
    assert broken.status_code == 400


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.just({"colour": "x"}))
FIELDS = ("product_id", "picture", "title", "attributes", "style", "language", "length", "count", "seed", "x\x00")


@settings(max_examples=settings.default.max_examples // 2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(st.binary(max_size=200), st.dictionaries(st.sampled_from(FIELDS), VALUES)),
    content_type=st.sampled_from(["application/json", "multipart/form-data; boundary=b", "text/plain", "x-www"]),
)
def test_no_body_gets_a_5xx(studio: RunningStudio, body: bytes | dict[str, object], content_type: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.post(f"{studio.url}/v1/captions", content=content, headers={"content-type": content_type})
    assert response.status_code in (400, 404)
    assert "\n" not in response.json()["message"]


def test_requests_at_the_same_time_share_batches_and_get_what_they_get_alone(world: StudioWorld) -> None:
    limits = CaptionLimits(batch_wait_seconds=0.2)
    with serving_studio(make_options(world, caption_limits=limits)) as studio:
        requests = [{"product_id": f"p{n:03}", "style": ("plain", "lively")[n % 2], "seed": n} for n in range(8, 20)]
        alone = [ask(studio, **one).json() for one in requests]
        before = studio.metrics.caption_batches._value.get()
        with ThreadPoolExecutor(12) as pool:
            together = list(pool.map(lambda one: ask(studio, **one).json(), requests))
        assert studio.metrics.caption_batches._value.get() - before < 6
    for one, other in zip(alone, together, strict=True):
        assert [line["text"] for line in one["candidates"]] == [line["text"] for line in other["candidates"]]


def test_a_full_queue_answers_503_at_once_and_says_when_to_come_back(world: StudioWorld) -> None:
    limits = CaptionLimits(queue_size=1, batch_wait_seconds=1.0)
    with serving_studio(make_options(world, caption_limits=limits)) as studio:
        first: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: first.append(ask(studio, product_id="p000")))
        thread.start()
        statuses = []
        while thread.is_alive() and 503 not in statuses:
            response = ask(studio, product_id="p001")
            statuses.append(response.status_code)
        thread.join()
        assert 503 in [*statuses, first[0].status_code]
        refused = response if response.status_code == 503 else first[0]
        assert (refused.json()["error"], refused.headers["retry-after"]) == ("RESOURCE_EXHAUSTED", "1")
        assert ask(studio, product_id="p001").status_code == 200


def test_without_labels_products_are_captioned_and_other_pictures_refused(world: StudioWorld) -> None:
    with serving_studio(make_options(world, labels=None)) as studio:
        assert ask(studio, product_id="p000").status_code == 200
        refused = ask(studio, picture=encode(draw("red")))
        assert refused.status_code == 400
        assert "--labels" in refused.json()["message"]


def test_the_token_guards_every_route_but_health(world: StudioWorld) -> None:
    token = "a-token-of-many-letters"
    with serving_studio(make_options(world, access=ServerAccess(token=token))) as studio:
        for path in ("/v1/captions", "/captions", "/metrics", "/docs", "/captions/picture?product_id=p000"):
            assert httpx.get(studio.url + path).status_code == 401, path
        for path in ("/healthz", "/readyz"):
            assert httpx.get(studio.url + path).status_code == 200, path
        headers = {"authorization": f"Bearer {token}"}
        counts = []
        for _ in range(2):
            answered = httpx.post(f"{studio.url}/v1/captions", json={"product_id": "p000"}, headers=headers, timeout=30)
            assert answered.status_code == 200
            counts.append(count_answered(studio, headers))
        assert counts[1] == counts[0] + 1
        assert "vitrine_studio_captions_total" in httpx.get(f"{studio.url}/metrics", headers=headers).text


def count_answered(studio: RunningStudio, headers: dict[str, str]) -> float:
    """Requests answered so far, by /metrics; other studios of this process may count in the same files."""
    metrics = httpx.get(f"{studio.url}/metrics", headers=headers).text
    found = re.search(r'vitrine_serving_requests_total{code="OK",protocol="http"} (\S+)', metrics)
    assert found is not None
    return float(found[1])


def test_a_disconnected_caller_gives_its_place_back(world: StudioWorld) -> None:
    limits = CaptionLimits(queue_size=1, batch_wait_seconds=0.3)
    with serving_studio(make_options(world, caption_limits=limits)) as studio:
        for _ in range(3):
            with httpx.stream(
                "POST",
                f"{studio.url}/v1/captions",
                json={"product_id": "p000"},
                headers={"accept": "text/event-stream"},
            ) as response:
                next(response.iter_raw())
        for _ in range(100):
            answer = ask(studio, product_id="p001")
            if answer.status_code == 200:
                break
        assert answer.status_code == 200


def test_the_description_of_the_routes_is_valid(studio: RunningStudio) -> None:
    description = httpx.get(f"{studio.url}/openapi.json").json()
    assert description["paths"]["/v1/captions"]["post"]["requestBody"]["content"].keys() == {
        "application/json",
        "multipart/form-data",
    }
    assert "Caption lines" in httpx.get(f"{studio.url}/docs").text
