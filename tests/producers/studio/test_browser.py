"""The studio's pages in a real browser: nothing from outside, nothing run, a phone needs no sideways scrolling."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from feature_repo.auth import ServerAccess
from producers.captions.edit_log import EditLog
from producers.studio.stable_diffusion import StableDiffusionModel
from tests.browsers import needs_chromium, open_browser, watch
from tests.producers.studio.world import HOSTILE, RunningStudio, StudioWorld, make_options, serving_studio
from tests.producers.text_to_image.tiny_pipeline import save_tiny_pipeline

TOKEN = "a-token-of-many-letters"

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionModel:
    return StableDiffusionModel(save_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def painting(world: StudioWorld, model: StableDiffusionModel) -> Iterator[RunningStudio]:
    with serving_studio(make_options(world), model) as running:
        yield running


def check_layout(tab: Any) -> None:
    """Nothing sticks out or is too small, and every field has a name."""
    assert tab.title() != "owned"
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{tab.url} sticks out"
    small = "e => e.offsetParent && e.childElementCount == 0 && parseFloat(getComputedStyle(e).fontSize) < 12"
    assert tab.evaluate(f"[...document.querySelectorAll('main *')].filter({small}).length") == 0
    unnamed = "e => !(e.labels?.length || e.getAttribute('aria-label'))"
    fields = "input:not([type=hidden]), select, textarea"
    assert tab.evaluate(f"[...document.querySelectorAll('{fields}')].filter({unnamed}).length") == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_a_merchant_edits_a_line_and_finds_it_again(
    browser: Any, painting: RunningStudio, world: StudioWorld, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844})
    tab = context.new_page()
    requested, problems = watch(tab)
    tab.goto(painting.url)
    check_layout(tab)
    tab.get_by_label("Product id").fill("p002")
    tab.get_by_label("Lines").fill("2")
    tab.get_by_role("button", name="Write lines").click()
    tab.get_by_alt_text("Picture of p002").wait_for()
    check_layout(tab)
    line = tab.locator("li.panel").first
    line.get_by_label("Keep this line, or change it").fill(f"蓝色 {HOSTILE} {width}")
    line.get_by_label("Your name").fill("Ann")
    line.get_by_role("button", name="Save this line").click()
    tab.get_by_text("is saved").wait_for()
    tab.get_by_role("cell", name=f"蓝色 {HOSTILE} {width}").wait_for()
    check_layout(tab)
    assert EditLog(world.settings).read("p002")["edited_caption"].to_pylist()[-1] == f"蓝色 {HOSTILE} {width}"
    assert all(one.startswith(painting.url) for one in requested), "nothing is loaded from elsewhere"
    assert problems == []
    context.close()


def test_a_large_photograph_is_made_small_and_captioned(browser: Any, painting: RunningStudio, tmp_path: Path) -> None:
    noise = Image.effect_noise((4_000, 3_000), 60).convert("RGB")
    Image.blend(Image.new("RGB", noise.size, (220, 30, 30)), noise, 0.05).save(tmp_path / "photograph.png")
    assert (tmp_path / "photograph.png").stat().st_size > 8 * 2**20
    tab = browser.new_page()
    tab.goto(f"{painting.url}/captions")
    tab.set_input_files("#picture", tmp_path / "photograph.png")
    for _ in range(100):  # the page's policy forbids what Playwright's own waiting for a function needs
        if tab.evaluate("document.getElementById('picture').files[0].size") < 4e6:
            break
        tab.wait_for_timeout(200)
    tab.get_by_role("button", name="Write lines").click()
    tab.get_by_role("heading", name="What is sure").wait_for()
    assert "红色" in tab.locator("ol.lines, .status").all_inner_texts()[0]
    tab.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_pictures_appear_while_the_page_is_open_and_can_be_downloaded_and_cancelled(
    browser: Any, painting: RunningStudio, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844})
    tab = context.new_page()
    requested, problems = watch(tab)
    tab.goto(f"{painting.url}/pictures")
    check_layout(tab)
    tab.get_by_label("What the pictures shall show").fill(HOSTILE)
    tab.get_by_label("Steps", exact=True).fill("2")
    tab.get_by_label("Pictures", exact=True).fill("2")
    tab.get_by_role("button", name="Generate").click()
    job = tab.locator("li.panel").first
    job.get_by_alt_text(f"Picture 2 of {HOSTILE}").wait_for()
    check_layout(tab)
    with tab.expect_download() as download:
        job.get_by_role("link", name="Download").first.click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    tab.get_by_label("What the pictures shall show").fill("a hat for long")
    tab.get_by_label("Steps", exact=True).fill("100")
    tab.get_by_label("Pictures", exact=True).fill("8")
    tab.get_by_role("button", name="Generate").click()
    long = tab.locator("li.panel", has_text="a hat for long").first
    long.locator("progress").wait_for()
    long.get_by_role("button", name="Cancel").click()
    tab.locator("li.panel", has_text="a hat for long").first.get_by_text("cancelled").wait_for()
    for _ in range(2):
        before = tab.locator("li.panel").count()
        tab.locator("li.panel").first.get_by_role("button", name="Delete").click()
        tab.wait_for_load_state("networkidle")
        assert tab.locator("li.panel").count() == max(1, before - 1)
    assert all(one.startswith(painting.url) for one in requested), "nothing is loaded from elsewhere"
    assert problems == []
    context.close()


def test_a_person_signs_in_by_the_keyboard(browser: Any, world: StudioWorld) -> None:
    with serving_studio(make_options(world, access=ServerAccess(token=TOKEN))) as studio:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(f"{studio.url}/captions?product_id=p001")
        tab.keyboard.type(TOKEN)
        tab.keyboard.press("Enter")
        tab.get_by_role("heading", name="Write a selling line").wait_for()
        assert tab.get_by_label("Product id").input_value() == "p001"
        assert tab.evaluate("document.cookie") == "", "a script cannot read the session"
        context.close()
