"""The words with which captions begin, without a model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.captions.facts import Fact, ProductFacts, find_statements
from producers.captions.prompts import CONTRADICTION, CaptionOptions, join_words, list_prompts
from producers.datasets.shop import vocabulary

WORDS = {
    language: {
        "category": {one.path(language): list(one.words(language)) for one in vocabulary.CATEGORIES},
        "child_age": dict(zip("abcde", map(list, vocabulary.AGE_WORDS[language]), strict=True)),
        "child_gender": dict(zip("bgu", map(list, vocabulary.GENDER_WORDS[language]), strict=True)),
        "colour": {one.name: list(one.words(language)) for one in vocabulary.COLOURS},
        "pattern": {one.name: list(one.words(language)) for one in vocabulary.PATTERNS},
    }
    for language in vocabulary.LANGUAGES
}
"""The words of the generated shop, whose values have words in both languages."""


def list_lines(facts: list[Fact], words: dict, **options: object) -> tuple[dict[str, tuple[Fact, ...]], str | None]:
    style = options.get("style", "plain")
    sure = ProductFacts(tuple(facts), None)
    return list_prompts(sure, style, words, CaptionOptions(**options), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("language", "line"), [("zh", "幼儿女童粉色条纹裙子"), ("en", "pink striped dress girls toddler")]
)
def test_a_plain_line_has_the_order_of_its_language(language: str, line: str) -> None:
    chosen = {"zh": ("幼儿", "女童", "粉色", "条纹", "裙子"), "en": ("toddler", "girls", "pink", "striped", "dress")}
    names = ("child_age", "child_gender", "colour", "pattern", "category")
    words = {name: {"x": [word]} for name, word in zip(names, chosen[language], strict=True)}
    facts = [Fact(name, "x", 0.99) for name in names]
    assert list(list_lines(facts, words, language=language)[0]) == [line]


@given(data=st.data())
def test_a_line_states_its_facts_and_nothing_else_and_fits(data: st.DataObject) -> None:
    language = data.draw(st.sampled_from(vocabulary.LANGUAGES))
    tags = data.draw(st.lists(st.sampled_from(list(WORDS[language])), unique=True, min_size=1))
    facts = [
        Fact(tag, data.draw(st.sampled_from(list(WORDS[language][tag]))), 0.9 + i / 100) for i, tag in enumerate(tags)
    ]
    facts.sort(key=lambda fact: -fact.probability)
    length, style = data.draw(st.integers(1, 60)), data.draw(st.sampled_from(["plain", "lively"]))
    lines, reason = list_lines(facts, WORDS[language], language=language, length=length, style=style)
    assert bool(lines) == (reason is None)
    for line, stated in lines.items():
        assert len(line) <= length
        assert find_statements(line, WORDS[language]) == {(fact.tag, fact.value) for fact in stated} != set()
        assert list(stated) == facts[: len(stated)]  # the least probable are left out first


def test_words_that_state_something_else_where_they_meet_give_no_line() -> None:
    words = {"child_gender": {"boy": ["小"]}, "category": {"dog": ["狗"], "puppy": ["小狗"]}}
    facts = [Fact("child_gender", "boy", 0.99), Fact("category", "dog", 0.99)]
    assert list_lines(facts, words) == ({}, CONTRADICTION)


def test_chinese_words_are_joined_without_spaces_except_between_latin_ones() -> None:
    assert join_words(["0-6M", "T恤", "女童"], "zh") == "0-6M T恤女童"
    assert join_words(["red", "", "hat"], "en") == "red hat"
