"""The pages in a real browser: nothing that a title says is run, a phone needs no sideways scrolling, keys judge."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from consumers.pages.cards import make_url
from feature_repo.auth import ServerAccess
from tests.browsers import needs_chromium, open_browser, watch
from tests.consumers.pages.test_labels_page import read_answers
from tests.consumers.pages.world import ODD_ID, PageWorld, serving_pages
from tests.servers import free_port

TOKEN = "a-token-of-many-letters"

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as chromium:
        yield chromium


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_titles_run_nothing_and_nothing_sticks_out(
    browser: Any, url: str, world: PageWorld, width: int, scheme: str
) -> None:
    world.store_sample("browser", 6)
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    tab = context.new_page()
    requested, problems = watch(tab)
    tab.goto(f"{url}/labels")
    tab.locator("form.sample", has_text="browser").get_by_label("Your name").fill("Ann <b>")
    tab.locator("form.sample", has_text="browser").get_by_role("button").click()
    tab.wait_for_url("**/labels/judge*")
    for path in (
        "/search?q=红色",
        "/search?like=p00002&collapse=1",
        make_url(ODD_ID),
        "/product/p00002",
        "/searches",
        tab.url[len(url) :],
    ):
        tab.goto(url + path)
        tab.wait_for_load_state("networkidle")
        assert tab.title() != "owned"
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} sticks out"
        small = "e => e.offsetParent && e.childElementCount == 0 && parseFloat(getComputedStyle(e).fontSize) < 12"
        assert tab.evaluate(f"[...document.querySelectorAll('main *')].filter({small}).length") == 0
        unnamed = "e => !(e.labels?.length || e.getAttribute('aria-label'))"
        fields = "input:not([type=hidden]), select"
        assert tab.evaluate(f"[...document.querySelectorAll('{fields}')].filter({unnamed}).length") == 0
        assert tab.evaluate("document.querySelectorAll('main, h1').length") >= 2
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")
    assert all(one.startswith(url) for one in requested), "nothing is loaded from elsewhere"
    assert problems == []
    context.close()


def test_keys_judge_pairs_undo_takes_back_and_answers_survive_a_restart(browser: Any, world: PageWorld) -> None:
    world.store_sample("keys", 12)
    port = free_port()
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    with serving_pages(world, port=port) as url:
        tab.goto(f"{url}/labels")
        form = tab.locator("form.sample", has_text="keys")
        form.get_by_label("Your name").fill("Ann")
        form.get_by_role("button").click()
        tab.wait_for_url("**/labels/judge*")
        count = tab.locator("#count")
        for number, key in enumerate("1234", start=1):
            before = tab.locator("#left .title").inner_text() + tab.locator("#right .title").inner_text()
            tab.keyboard.press(key)
            after = tab.locator("#left .title").inner_text() + tab.locator("#right .title").inner_text()
            assert after != before, "the next pair is shown at once"
            count.get_by_text(f"{number} of 12 judged, {number} by you").wait_for()
        labels = sorted(label for label, _ in read_answers(world, "keys").values())
        assert labels == ["different", "same", "similar", "unsure"]
        tab.keyboard.press("z")
        count.get_by_text("3 of 12 judged").wait_for()
        assert sorted(label for label, _ in read_answers(world, "keys").values()) == ["different", "same", "similar"]
        tab.keyboard.press("1")
        count.get_by_text("4 of 12 judged").wait_for()
    tab.keyboard.press("1")
    tab.keyboard.press("2")
    tab.locator("#trouble", has_text="2 not saved yet").wait_for()
    with serving_pages(world, port=port):
        count.get_by_text("6 of 12 judged, 6 by you").wait_for(timeout=20_000)
        assert tab.locator("#trouble").is_hidden()
        assert len(read_answers(world, "keys")) == 6
        tab.reload()
        for _ in range(6):
            tab.keyboard.press("3")
        tab.locator("#done", has_text="Every pair of this sample is judged").wait_for()
    assert len(read_answers(world, "keys")) == 12
    assert {who for _, who in read_answers(world, "keys").values()} == {"Ann"}
    tab.close()


def test_a_thumb_judges_pairs_on_a_phone(browser: Any, url: str, world: PageWorld) -> None:
    world.store_sample("thumb", 3)
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    tab = context.new_page()
    tab.goto(f"{url}/labels")
    form = tab.locator("form.sample", has_text="thumb")
    form.get_by_label("Your name").fill("Bob")
    form.get_by_role("button").tap()
    tab.wait_for_url("**/labels/judge*")
    for button in tab.locator(".answer").all():
        box = button.bounding_box()
        assert box["height"] >= 44
        assert box["y"] + box["height"] <= 844, "answers are in sight without scrolling"
    tab.get_by_role("button", name="Similar").tap()
    tab.locator("#count").get_by_text("1 of 3 judged").wait_for()
    assert [*read_answers(world, "thumb").values()] == [("similar", "Bob")]
    context.close()


def test_a_large_photograph_is_made_small_and_searched_by(browser: Any, url: str, tmp_path: Path) -> None:
    Image.effect_noise((4_000, 3_000), 200).convert("RGB").save(tmp_path / "photograph.png")
    assert (tmp_path / "photograph.png").stat().st_size > 8 * 2**20
    tab = browser.new_page()
    tab.goto(f"{url}/search")
    tab.get_by_text("Search by a picture").click()
    tab.set_input_files("#picture", tmp_path / "photograph.png")
    for _ in range(100):  # the page's policy forbids what Playwright's own waiting for a function needs
        if tab.evaluate("document.getElementById('picture').files[0].size") < 4e6:
            break
        tab.wait_for_timeout(200)
    tab.get_by_role("button", name="Search by this picture").click()
    tab.get_by_text("your picture").wait_for()
    assert tab.locator("li.card").count() == 24
    tab.close()


def test_a_person_signs_in_by_the_keyboard_and_comes_to_the_page_that_was_asked_for(
    browser: Any, world: PageWorld
) -> None:
    with serving_pages(world, access=ServerAccess(token=TOKEN)) as url:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(f"{url}/product/p00001")
        tab.keyboard.type("wrong-token-wrong-token")
        tab.keyboard.press("Enter")
        tab.get_by_role("alert").wait_for()
        tab.keyboard.type(TOKEN)
        tab.keyboard.press("Enter")
        tab.get_by_role("heading", name="红色 连衣裙").wait_for()
        assert tab.evaluate("document.cookie") == "", "a script cannot read the session"
        context.close()
