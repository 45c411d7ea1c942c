"""The pages over HTTP: what they show, and that they run nothing that a title, an id or another site sends."""

import io
import re
from pathlib import Path

import httpx
import pytest
from PIL import Image

from consumers.pages.cards import make_url
from consumers.search.calibration import SearchCalibration, write_calibration
from feature_repo.auth import ServerAccess
from feature_repo.exported.encoder import open_encoder
from feature_repo.serving_limits import PageLimits
from tests.consumers.pages.world import ODD_ID, TITLES, PageWorld, serving_pages

TOKEN = "a-token-of-many-letters"


def read_form_token(page: str) -> str:
    """Return the hidden field of a page's forms."""
    match = re.search(r'name="form_token" value="([^"]+)"', page)
    assert match
    return match[1]


def encode_png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1" if width > 1_000 else "RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("path", ["/search?q=红色", "/search?like=p00002", "/product/p00002", make_url(ODD_ID)])
def test_titles_brands_and_ids_are_shown_as_text(url: str, path: str) -> None:
    page = httpx.get(url + path)
    assert page.status_code == 200
    assert "<script>document" not in page.text
    assert "&lt;script&gt;document" in page.text
    assert not re.search(r"<[^>]+\son\w+=", page.text), "no handler is an attribute"
    assert not re.search(r"<[^>]*(?:href|src|action)=\"(?!/|#)[^\"]+\"", page.text), "links stay on this server"
    assert "<script>" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


def test_a_search_shows_cards_with_reasons_and_pages_through_them(url: str) -> None:
    first = httpx.get(f"{url}/search", params={"q": "蓝色积木"}).text
    assert first.count('<li class="card">') == 24
    assert "title says" in first
    assert f"<b>{len(TITLES)}</b> of {len(TITLES)} products, page 1 of 2" in first
    second = httpx.get(f"{url}/search", params={"q": "蓝色积木", "page": "2"}).text
    assert second.count('<li class="card">') == len(TITLES) - 24
    assert "page 2 of 2" in httpx.get(f"{url}/search", params={"q": "蓝色积木", "page": "99999999999"}).text


def test_filters_narrow_a_search(url: str) -> None:
    chosen = {"q": "红色", "category": "裙子", "price_max": "30", "in_stock": "1", "tag_child_age": "1-3y"}
    page = httpx.get(f"{url}/search", params=chosen).text
    assert "<b>2</b> of 2 products that pass the filters" in page
    assert "裙子 · up to 30 · 1-3y · in stock" in page
    assert 'value="30"' in page, "the form keeps what was typed"


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"q": "红色", "price_min": "cheap"}, 400, "The lowest price is &#39;cheap&#39;"),
        ({"q": "红色", "price_min": "9", "price_max": "1"}, 400, "is above the highest"),
        ({"q": "红" * 1_001}, 400, "The sentence has 1,001 characters"),
        ({"q": "ქართული"}, 400, "knows a word of"),
        ({"q": "红色", "category": "nowhere"}, 200, "No product is in category &#39;nowhere&#39;"),
        ({"like": "nobody"}, 200, "Product &#39;nobody&#39; has no vector"),
        ({"picture": "AAAA"}, 400, "send the picture again"),
        ({"q": "  "}, 200, f"{len(TITLES)} products can be found"),
    ],
)
def test_what_is_wrong_with_a_search_is_said_beside_its_form(
    url: str, fields: dict[str, str], status: int, message: str
) -> None:
    page = httpx.get(f"{url}/search", params=fields)
    assert (page.status_code, message in page.text) == (status, True), page.text
    assert '<form class="search"' in page.text


def test_results_end_at_the_cutoff_and_go_on_if_asked(world: PageWorld, tmp_path: Path) -> None:
    version = open_encoder(world.towers).encoder_version
    weights = {"keywords": 1.0, "words": 0.0, "image": 0.0, "text": 0.0}
    write_calibration(SearchCalibration(version, weights, 0.0, 0.0, {}), tmp_path / "calibration.json")
    with serving_pages(world, calibration=tmp_path / "calibration.json") as url:
        page = httpx.get(f"{url}/search", params={"q": "红色"}).text
        assert "<b>6</b> of" in page
        assert f"{len(TITLES) - 6} more score below the cut-off" in page
        more = re.search(r'href="([^"]+)">Show more anyway', page)
        assert more
        assert f"<b>{len(TITLES)}</b> of" in httpx.get(url + more[1].replace("&amp;", "&")).text


@pytest.mark.parametrize("product_id", TITLES)
def test_every_product_has_a_page_whatever_its_id(url: str, product_id: str) -> None:
    page = httpx.get(url + make_url(product_id))
    assert page.status_code == 200
    assert "Nearest products" in page.text


def test_a_product_shows_tags_group_and_journal(url: str) -> None:
    page = httpx.get(f"{url}/product/p00001").text
    assert "Probability of each value" in page, "tags come from the online store"
    assert "Journal of group g1 (2)" in page
    assert page.index("at other sellers") < page.index(make_url(ODD_ID)) < page.index("Nearest products")
    missing = httpx.get(f"{url}/product/<b>nobody")
    assert missing.status_code == 404
    assert "There is no product &#39;&lt;b&gt;nobody&#39;" in missing.text


def test_pictures_are_small_jpegs_that_a_browser_keeps(url: str, world: PageWorld) -> None:
    path = re.search(r'src="(/pictures/p00001[^"]+)"', httpx.get(f"{url}/product/p00001").text)
    assert path
    picture = httpx.get(url + path[1].replace("&amp;", "&"))
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert Image.open(io.BytesIO(picture.content)).size == (40, 30)
    again = httpx.get(url + path[1], headers={"if-none-match": picture.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for absent in ("/pictures/p00004", "/pictures/nobody", "/pictures/p00001?number=7", "/pictures/..%2F..%2Fetc"):
        assert httpx.get(url + absent).status_code == 404


def test_a_picture_finds_the_products_that_look_like_it(url: str) -> None:
    with httpx.Client(base_url=url, follow_redirects=True) as browser:
        token = {"form_token": read_form_token(browser.get("/search").text), "price_max": "25"}
        found = browser.post("/search/picture", data=token, files={"picture": ("x.png", encode_png(40, 30))})
        assert found.status_code == 200
        assert "Products like <b>your picture</b>" in found.text
        assert "<b>2</b> of 2 products that pass the filters" in found.text
        assert browser.get(str(found.url)).text.count('<li class="card">') == 2, "the link holds the picture's vector"
        for content, reason in (
            (b"", "No picture was sent"),
            (b"<svg onload=alert(1)>", "The picture cannot be used"),
            (encode_png(9_000, 9_000), "at most 50,000,000 are decoded"),
        ):
            refused = browser.post("/search/picture", data=token, files={"picture": ("x.png", content)})
            assert (refused.status_code, reason in refused.text) == (400, True), refused.text
        large = browser.post("/search/picture", data=token, files={"picture": bytes(PageLimits.max_upload_bytes + 1)})
        assert large.status_code == 413


def test_a_saved_search_says_what_came_and_went(url: str, world: PageWorld) -> None:
    with httpx.Client(base_url=url, follow_redirects=True) as browser:
        page = browser.get("/search", params={"q": "红色", "price_max": "60"}).text
        fields = {"form_token": read_form_token(page), "q": "红色", "price_max": "60", "name": "春季"}
        saved = browser.post("/searches", data=fields)
        assert "<b>0 came</b>, <b>0 went</b>, 6 stayed" in saved.text
        assert "saved as &#39;春季&#39; already" in browser.post("/searches", data=fields).text
        assert browser.post("/searches", data=fields | {"name": "../x"}).status_code == 400
        file = world.settings.local / "searches" / "春季.json"
        file.write_text(file.read_text().replace('"p00002"', '"b07"'))
        changed = browser.get("/searches/春季").text
        assert "<b>1 came</b>, <b>1 went</b>, 5 stayed" in changed
        assert changed.index("Came") < changed.index("/product/p00002") < changed.index("Went")
        browser.post("/searches/春季", data=fields)
        assert "<b>0 came</b>, <b>0 went</b>" in browser.get("/searches/春季").text
        assert "6 products on" in browser.get("/searches").text
        browser.post("/searches/春季/remove", data=fields)
        assert "None yet" in browser.get("/searches").text


def test_a_form_that_no_page_of_the_session_made_is_refused(url: str, world: PageWorld) -> None:
    token = read_form_token(httpx.get(f"{url}/search?q=红色").text)  # of a session that is forgotten
    with httpx.Client(base_url=url) as browser:
        own = read_form_token(browser.get("/search?q=红色").text)
        fields = {"q": "红色", "name": "stolen"}
        for sent, headers in (
            (fields, {}),
            (fields | {"form_token": token}, {}),
            (fields | {"form_token": own}, {"sec-fetch-site": "cross-site"}),
            (fields | {"form_token": own}, {"cookie": "vitrine_session=9999999999.x.y"}),
        ):
            refused = browser.post("/searches", data=sent, headers=headers)
            assert (refused.status_code, "expired" in refused.text) == (403, True)
        assert browser.get("/search", headers={"host": "evil.example"}).status_code == 400, "DNS rebinding"
    assert not (world.settings.local / "searches" / "stolen.json").exists()


def test_a_browser_signs_in_once_where_the_service_needs_a_token(world: PageWorld) -> None:
    with serving_pages(world, access=ServerAccess(token=TOKEN)) as url, httpx.Client(base_url=url) as browser:
        html = {"accept": "text/html"}
        sent = browser.get("/search?q=红色", headers=html)
        assert (sent.status_code, sent.headers["location"]) == (
            303,
            "/sign-in?next=%2Fsearch%3Fq%3D%25E7%25BA%25A2%25E8%2589%25B2",
        )
        assert httpx.get(f"{url}/pictures/p00001", headers={"sec-fetch-mode": "no-cors"}).status_code == 401
        assert "Sign in" in browser.get(sent.headers["location"]).text
        wrong = browser.post("/sign-in", data={"token": "not-the-token-at-all", "next": "/search"})
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
        right = browser.post("/sign-in", data={"token": f" {TOKEN} ", "next": "/search?q=x"})
        assert (right.status_code, right.headers["location"]) == (303, "/search?q=x")
        assert "HttpOnly; SameSite=Strict" in right.headers["set-cookie"]
        assert TOKEN not in right.headers["set-cookie"]
        assert "Sign out" in browser.get("/search", headers=html).text
        assert browser.get("/v1/services").status_code == 401, "a session is for pages, not for programs"
        for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example", "evil"):
            assert browser.post("/sign-in", data={"token": TOKEN, "next": elsewhere}).headers["location"] == "/"
        assert "Max-Age=0" in browser.post("/sign-out").headers["set-cookie"]
        assert browser.get("/search", headers=html).status_code == 303
        session = {"cookie": right.headers["set-cookie"].split(";")[0]}
    with serving_pages(world, access=ServerAccess(token=TOKEN)) as url:
        assert httpx.get(f"{url}/search", headers=html | session).status_code == 200, "also after a restart"
    with serving_pages(world, access=ServerAccess(token=f"another {TOKEN}")) as url:
        assert httpx.get(f"{url}/search", headers=html | session).status_code == 303, "not with another token"


def test_the_start_page_links_to_the_pages(url: str) -> None:
    start = httpx.get(url).text
    for path in ("/search", "/searches", "/labels"):
        assert f'<a href="{path}">' in start


def test_the_pages_do_not_name_paths_of_the_server(url: str) -> None:
    for path in ("/search?q=红色", "/product/nobody", "/searches/nobody", "/labels/judge?sample=nobody", "/labels"):
        page = httpx.get(url + path).text
        assert "/tmp" not in page
        assert "Traceback" not in page
