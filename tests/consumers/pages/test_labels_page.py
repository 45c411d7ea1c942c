"""Judging pairs: answers are kept whoever sends them, whenever the service ends."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from consumers.labels.judging import JudgingBook, check_labeller, read_newest_labels
from consumers.labels.report import score_labels
from feature_repo.errors import InvalidInputError, NotFoundError
from tests.consumers.pages.test_pages import read_form_token
from tests.consumers.pages.world import NOW, PageWorld


def read_answers(world: PageWorld, sample: str) -> dict[str, tuple[str, str]]:
    """Return label and labeller of each judged pair in the table."""
    rows = [row for row in read_newest_labels(world.settings).to_pylist() if row["week"] == sample and row["label"]]
    assert all(row["inclusion_probability"] == 0.25 and row["labelled_at"] for row in rows)
    return {row["pair_id"]: (row["label"], row["labeller"]) for row in rows}


def begin(browser: httpx.Client, sample: str, labeller: str = "Ann") -> dict[str, str]:
    """Give a name; return the hidden fields of the forms."""
    token = read_form_token(browser.get("/labels").text)
    sent = browser.post("/labels", data={"sample": sample, "labeller": labeller, "form_token": token})
    assert sent.status_code == 303
    return {"sample": sample, "form_token": token}


def test_a_pair_is_judged_without_a_script(url: str, world: PageWorld) -> None:
    world.store_sample("plain", 4)
    with httpx.Client(base_url=url, follow_redirects=True, headers={"accept": "text/html"}) as browser:
        token = read_form_token(browser.get("/labels").text)
        page = browser.post("/labels", data={"sample": "plain", "labeller": "安 娜", "form_token": token}).text
        assert "0 of 4 judged, 0 by you" in page
        pair_id = page.split('name="pair_id" value="')[1].split('"')[0]
        common = {"sample": "plain", "form_token": token}
        page = browser.post("/labels/answers", data=common | {"pair_id": pair_id, "label": "similar"}).text
        assert "1 of 4 judged, 1 by you" in page
        assert read_answers(world, "plain") == {pair_id: ("similar", "安 娜")}
        page = browser.post("/labels/undo", data=common).text
        assert "0 of 4 judged" in page
        assert f'name="pair_id" value="{pair_id}"' in page
        assert read_answers(world, "plain") == {}


def test_a_labeller_is_not_told_which_pairs_are_repeats(url: str, world: PageWorld) -> None:
    world.store_sample("hidden", 5)
    with httpx.Client(base_url=url) as browser:
        begin(browser, "hidden")
        response = browser.get("/labels/pairs", params={"sample": "hidden"}).json()
        assert len(response["pairs"]) == 5
        assert {*response["pairs"][0]} == {"pair_id", "left", "right"}
        assert {*response["pairs"][0]["left"]} == {"title", "facts", "picture", "url"}
        assert "repeat" not in json.dumps(response)


def test_labellers_at_the_same_time_get_different_pairs_and_lose_no_answer(url: str, world: PageWorld) -> None:
    world.store_sample("together", 20)

    def judge(labeller: str) -> dict[str, str]:
        given: dict[str, str] = {}
        with httpx.Client(base_url=url, timeout=60, headers={"accept": "application/json"}) as browser:
            fields = begin(browser, "together", labeller)
            ahead = browser.get("/labels/pairs", params={"sample": "together"}).json()["pairs"]
            while ahead:
                pair = ahead.pop(0)
                label = ("same", "different")[len(given) % 2]
                given[pair["pair_id"]] = label
                without = ",".join(one["pair_id"] for one in ahead)
                data = fields | {"pair_id": pair["pair_id"], "label": label, "without": without}
                response = browser.post("/labels/answers", data=data)
                assert response.status_code == 200, response.text
                ahead += response.json()["pairs"]
        return given

    with ThreadPoolExecutor() as pool:
        given = dict(zip("abc", pool.map(judge, "abc"), strict=True))
    expected = {pair: (label, who) for who, answers in given.items() for pair, label in answers.items()}
    assert len(expected) == sum(map(len, given.values())) == 20
    assert read_answers(world, "together") == expected


def test_judging_goes_on_after_a_restart_and_undo_reaches_back(world: PageWorld) -> None:
    world.store_sample("again", 6)
    book = JudgingBook(world.settings)
    rows, _ = book.draw_pairs("again", "Ann", 2, NOW)
    for minute, row in enumerate(rows):
        book.record_answer(row["pair_id"], "same", "Ann", NOW + timedelta(minutes=minute))
    later = JudgingBook(world.settings)
    assert [one.judged for one in later.list_samples() if one.name == "again"] == [2]
    following, _ = later.draw_pairs("again", "Ann", 9, NOW)
    assert not {row["pair_id"] for row in following} & {row["pair_id"] for row in rows}
    for row in reversed(rows):
        assert later.take_back("again", "Ann", NOW)["pair_id"] == row["pair_id"]
    with pytest.raises(NotFoundError, match="no answer in again"):
        later.take_back("again", "Ann", NOW)
    assert book.draw_pairs("again", "Bob", 9, NOW + timedelta(hours=1))[1].judged == 0, "others' answers are seen"


def test_a_lent_pair_is_asked_again_when_its_time_is_over(world: PageWorld) -> None:
    world.store_sample("lent", 2)
    book = JudgingBook(world.settings)
    assert len(book.draw_pairs("lent", "Ann", 2, NOW)[0]) == 2
    assert book.draw_pairs("lent", "Bob", 2, NOW)[0] == []
    assert len(book.draw_pairs("lent", "Bob", 2, NOW + timedelta(minutes=11))[0]) == 2


def test_answers_of_the_page_are_scored_and_open_pairs_are_not(world: PageWorld) -> None:
    world.store_sample("scored", 5)
    book = JudgingBook(world.settings)
    rows, _ = book.draw_pairs("scored", "Ann", 9, NOW)
    for row in rows[:3]:
        book.record_answer(row["pair_id"], "same", "Ann", NOW)
    (week,) = [one for one in score_labels(world.settings, top_k=3).weeks if one.week == "scored"]
    assert week.judged == 3


@pytest.mark.parametrize(
    ("path", "fields", "status", "message"),
    [
        ("/labels/answers", {"pair_id": "nobody", "label": "same"}, 404, "no stored sample has the pair"),
        ("/labels/answers", {"pair_id": "nobody", "label": "<b>"}, 400, "expected one of same, similar"),
        ("/labels/undo", {"sample": "none"}, 404, "there is no sample"),
    ],
)
def test_an_impossible_answer_is_refused(
    url: str, path: str, fields: dict[str, str], status: int, message: str
) -> None:
    with httpx.Client(base_url=url, headers={"accept": "application/json"}) as browser:
        refused = browser.post(path, data=begin(browser, "x") | fields)
        assert (refused.status_code, message in refused.json()["message"]) == (status, True), refused.text


def test_a_labeller_needs_a_name(url: str, world: PageWorld) -> None:
    world.store_sample("named", 3)
    with httpx.Client(base_url=url) as browser:
        token = read_form_token(browser.get("/labels").text)
        for name in (" ", "n" * 61):
            refused = browser.post("/labels", data={"sample": "x", "labeller": name, "form_token": token})
            assert refused.status_code == 400
        unnamed = browser.post("/labels/undo", data={"form_token": token}, headers={"accept": "application/json"})
        assert "nobody is named" in unnamed.json()["message"]
    with pytest.raises(InvalidInputError, match="is not a name"):
        check_labeller("a\x00")
