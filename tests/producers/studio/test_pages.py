"""The studio's pages over HTTP: lines edited and kept, pictures generated, and nothing done for other sites."""

import re
import socket
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from PIL import Image

from feature_repo.auth import ServerAccess
from producers.captions.edit_log import EditLog, export_edits
from producers.studio.stable_diffusion import StableDiffusionModel
from tests.producers.studio.world import (
    HOSTILE,
    RunningStudio,
    StudioWorld,
    draw,
    encode_png,
    make_options,
    serving_studio,
)
from tests.producers.text_to_image.tiny_pipeline import save_tiny_pipeline


@pytest.fixture(scope="module")
def painting(world: StudioWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio that generates pictures too."""
    model = StableDiffusionModel(save_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny"))
    with serving_studio(make_options(world), model) as running:
        yield running


@pytest.fixture
def browser(painting: RunningStudio) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=painting.url, timeout=30) as client:
        yield client


def form_token(page: httpx.Response) -> str:
    found = re.search(r'name="form_token" value="(\w+)"', page.text)
    assert found
    return found[1]


def test_the_start_page_leads_to_the_captions_and_pages_link_to_search_and_pairs(browser: httpx.Client) -> None:
    page = browser.get("/", follow_redirects=True)
    assert page.url.path == "/captions"
    for link in ("http://127.0.0.1:1/search", "http://127.0.0.1:1/labels", "/pictures", "/docs"):
        assert f'href="{link}"' in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]


def test_lines_of_a_product_are_shown_edited_and_kept(
    browser: httpx.Client, world: StudioWorld, tmp_path: Path
) -> None:
    token = form_token(browser.get("/captions?product_id=p000"))
    page = browser.post("/captions", data={"form_token": token, "product_id": "p000", "count": "2"})
    assert "红色" in page.text
    assert re.search(r"colour red\s*\(\d", page.text)
    assert 'src="/captions/picture?product_id=p000"' in page.text
    picture = browser.get("/captions/picture?product_id=p000")
    assert picture.headers["content-type"] == "image/jpeg"
    caption = unescape(re.findall(r'name="caption" value="([^"]*)"', page.text)[0])
    fields = {"product_id": "p000", "caption": caption, "edited_caption": "绿色 的\n裙子", "editor": "Ann <b>"}
    saved = browser.post("/captions/edits", data={"form_token": token, **fields}, follow_redirects=True)
    assert "The line of <b>p000</b> is saved" in saved.text
    assert "绿色 的 裙子" in saved.text
    assert "Ann &lt;b&gt;" in saved.text
    row = EditLog(world.settings).read("p000").to_pylist()[-1]
    assert (row["caption"], row["edited_caption"], row["editor"]) == (caption, "绿色 的 裙子", "Ann <b>")
    exported = export_edits(world.settings, tmp_path / "edits.parquet")
    assert (exported.edits, exported.unknown) == (EditLog(world.settings).read().num_rows, 0)


def test_a_sent_picture_is_captioned_and_its_line_needs_a_product_to_be_kept(browser: httpx.Client) -> None:
    token = form_token(browser.get("/captions"))
    page = browser.post(
        "/captions", data={"form_token": token}, files={"picture": ("x.png", encode_png(draw("blue", 99)))}
    )
    assert "蓝色" in page.text
    refused = browser.post(
        "/captions/edits", data={"form_token": token, "product_id": "", "caption": "a", "edited_caption": "b"}
    )
    assert refused.status_code == 400
    assert "The line is not saved: product_id" in refused.text


def test_mistakes_are_shown_beside_the_form_and_texts_are_escaped(browser: httpx.Client) -> None:
    token = form_token(browser.get("/captions"))
    for fields, status, message in (
        ({"product_id": HOSTILE}, 404, "There is no product|there is no product"),
        ({"product_id": "p000", "attributes": "colour"}, 400, "without `=`"),
        ({"product_id": "p000", "attributes": f"colour={HOSTILE}"}, 400, "has no words"),
        ({"product_id": "p005"}, 404, "has no picture"),
        ({}, 400, "product_id and picture"),
    ):
        page = browser.post("/captions", data={"form_token": token, **fields})
        assert page.status_code == status
        assert re.search(message, page.text)
        assert HOSTILE not in page.text
    assert HOSTILE not in browser.get(f"/captions?product_id={HOSTILE}&saved={HOSTILE}").text


def test_forms_of_other_sites_and_of_other_sessions_change_nothing(browser: httpx.Client, world: StudioWorld) -> None:
    browser.get("/captions")
    before = EditLog(world.settings).read().num_rows
    fields = {"product_id": "p000", "caption": "a", "edited_caption": "b"}
    for token in ("", "0" * 40):
        assert browser.post("/captions/edits", data={"form_token": token, **fields}).status_code == 403
        assert browser.post("/pictures", data={"form_token": token, "sentence": "a hat"}).status_code == 403
    token = form_token(browser.get("/captions"))
    other = browser.post(
        "/captions/edits", data={"form_token": token, **fields}, headers={"sec-fetch-site": "cross-site"}
    )
    assert other.status_code == 403
    assert EditLog(world.settings).read().num_rows == before


def test_pictures_are_generated_shown_downloaded_and_deleted(browser: httpx.Client) -> None:
    token = form_token(browser.get("/pictures"))
    fields = {"sentence": "a pink <romper>", "steps": "2", "count": "2", "seed": "3", "product_id": "p000"}
    browser.post("/pictures", data={"form_token": token, **fields}, follow_redirects=True).raise_for_status()
    for _ in range(500):
        page = browser.get("/pictures/jobs")
        if 'data-state="done"' in page.text:
            break
        time.sleep(0.02)
    assert "a pink &lt;romper&gt;" in page.text
    assert "http://127.0.0.1:1/search?q=a%20pink%20%3Cromper%3E" in page.text
    (job,) = re.findall(r'id="job-(\w+)"', page.text)
    assert page.text.count('loading="lazy"') == 2
    picture = browser.get(f"/pictures/{job}/1.png")
    assert picture.content.startswith(b"\x89PNG")
    assert browser.get(f"/pictures/{job}/2.png").status_code == 404
    assert browser.get("/pictures/..%2f..%2fshop/0.png").status_code == 404
    assert browser.post(f"/pictures/{job}/delete", data={"form_token": token}).status_code == 303
    assert job not in browser.get("/pictures").text
    assert browser.get(f"/pictures/{job}/1.png").status_code == 404
    assert browser.post(f"/pictures/{job}/cancel", data={"form_token": token}).status_code == 404


def test_a_bad_request_for_pictures_is_shown_beside_the_form(browser: httpx.Client) -> None:
    token = form_token(browser.get("/pictures"))
    for fields, message in (
        ({"sentence": " "}, "it is empty"),
        ({"sentence": "a" * 10_000}, "10,000 characters; at most 500"),
        ({"sentence": "a hat", "steps": "many"}, "Steps: "),
        ({"sentence": "a hat", "width": "17"}, "expected a multiple of"),
    ):
        page = browser.post("/pictures", data={"form_token": token, **fields})
        assert page.status_code == 400
        assert message in page.text


def test_the_api_generates_pictures_too(painting: RunningStudio) -> None:
    with httpx.Client(base_url=painting.url, timeout=30) as client:
        made = client.post("/v1/pictures", json={"sentence": "a green hat", "steps": 2, "count": 2, "seed": 1})
        assert made.status_code == 202
        location = made.headers["location"]
        for _ in range(500):
            job = client.get(location).json()
            if job["state"] == "done":
                break
            time.sleep(0.02)
        assert (job["state"], job["step"], job["total_steps"], len(job["pictures"])) == ("done", 4, 4, 2)
        content = client.get(job["pictures"][0])
        assert content.headers["content-type"] == "image/png"
        assert Image.open(content).size == (job["width"], job["height"])
        assert job["id"] in {one["id"] for one in client.get("/v1/pictures").json()}
        assert client.delete(location).status_code == 204
        for response in (client.get(location), client.delete(location), client.get(job["pictures"][0])):
            assert response.status_code == 404
        for body, status in ((b"{", 400), (b'{"sentence": ""}', 400), (bytes(20_000), 413)):
            refused = client.post("/v1/pictures", content=body)
            assert (refused.status_code, "\n" in refused.json()["message"]) == (status, False)
        assert "vitrine_studio_pictures_total" in client.get("/metrics").text


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"host": "other.example"}]
)
def test_without_a_token_pages_of_other_sites_reach_no_route_of_programs(
    painting: RunningStudio, headers: dict[str, str]
) -> None:
    with httpx.Client(base_url=painting.url, timeout=30) as client:
        job = client.post("/v1/pictures", json={"sentence": "a hat", "steps": 1}).json()
        before = client.get("/v1/pictures").json()
        plain = headers | {"content-type": "text/plain"}  # which browsers send to other sites without asking them
        refused = [
            client.post("/v1/pictures", content='{"sentence": "a hat"}', headers=plain),
            client.post("/v1/captions", content='{"product_id": "p000"}', headers=plain),
            client.delete(f"/v1/pictures/{job['id']}", headers=headers),
            client.get("/v1/pictures", headers=headers),
        ]
        assert {one.status_code for one in refused} <= {400, 403}
        assert all("--token-file" in one.json()["message"] for one in refused)
        assert [one["id"] for one in client.get("/v1/pictures").json()] == [one["id"] for one in before]


def test_a_browser_that_goes_away_while_it_sends_a_form_leaves_one_line(
    painting: RunningStudio, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = painting.url.removeprefix("http://").split(":")
    for path in ("/captions", "/v1/captions"):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n"
            connection.sendall(f"{head}content-type: multipart/form-data; boundary=x\r\n\r\n--x".encode())
            time.sleep(0.2)
    time.sleep(0.5)
    assert httpx.get(f"{painting.url}/readyz").status_code == 200
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_studio_without_a_picture_model_has_no_pictures(studio: RunningStudio) -> None:
    assert httpx.get(f"{studio.url}/pictures").status_code == 404
    assert httpx.post(f"{studio.url}/v1/pictures", json={"sentence": "a hat"}).status_code == 404
    assert 'href="/pictures"' not in httpx.get(f"{studio.url}/captions").text


def test_a_person_signs_in_and_is_sent_on(world: StudioWorld) -> None:
    token = "a-token-of-many-letters"
    with (
        serving_studio(make_options(world, access=ServerAccess(token=token))) as studio,
        httpx.Client(base_url=studio.url, timeout=30) as client,
    ):
        asked = client.get("/captions?product_id=p001", headers={"accept": "text/html"})
        assert asked.status_code == 303
        page = client.post(
            "/sign-in", data={"token": token, "next": "/captions?product_id=p001"}, follow_redirects=True
        )
        assert 'value="p001"' in page.text
        assert client.post("/v1/captions", json={"product_id": "p001"}).status_code == 401, "needs the token itself"
