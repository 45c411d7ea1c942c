"""The words with which captions begin: for what the tags are sure of, in different wordings and orders."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from feature_repo.schema import CATEGORY_SEPARATOR
from feature_repo.vocabulary import Words
from producers.captions.facts import NO_TAGS, Fact, ProductFacts, find_statements

PLAIN_ORDERS = {
    "zh": ("child_age", "child_gender", "", "category"),
    "en": ("", "category", "child_gender", "child_age"),
}
"""The order of attributes in a plain caption; "" stands for all others, in the order of the vocabulary."""
NO_WORDS = "the words lack every value that is sure, in this language"
NO_ROOM = "no sure value fits the length"
CONTRADICTION = "the words of the sure values state other values where they meet"

_HAN = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True)
class CaptionOptions:
    """How captions are written."""

    language: str = "zh"
    """One of schema.CAPTION_LANGUAGES."""
    style: str = "plain"
    """One of schema.CAPTION_STYLES."""
    category_styles: Mapping[str, str] = field(default_factory=dict)
    """Category -> the style of its products and those of the categories below it."""
    min_probability: float = 0.9
    """An attribute that is less probable is not stated, in [0, 1]."""
    length: int = 40
    """Most characters of a caption."""
    candidates: int = 4
    """Candidates for each image."""
    seed: int = 0
    """Seed of wordings, orders and continuations."""

    def choose_style(self, category: str | None) -> str:
        """Return the style for a category: that of the longest path in `category_styles` which it is or is below."""
        levels = (category or "").split(CATEGORY_SEPARATOR)
        paths = (CATEGORY_SEPARATOR.join(levels[:depth]) for depth in range(len(levels), 0, -1))
        return next((self.category_styles[path] for path in paths if path in self.category_styles), self.style)


def list_prompts(
    facts: ProductFacts | None,
    style: str,
    vocabulary: Mapping[str, Words],
    options: CaptionOptions,
    rng: np.random.Generator,
) -> tuple[dict[str, tuple[Fact, ...]], str | None]:
    """Return different lines of words for sure facts, with what each states; or none, and the reason."""
    if facts is None:
        return {}, NO_TAGS
    if not facts.sure:
        return {}, f"no attribute is at least {options.min_probability:.0%} sure"
    wordings: dict[Fact, list[str]] = {}
    for fact in facts.sure:
        words = vocabulary.get(fact.tag, {}).get(fact.value, [])
        if spoken := [word for word in words if is_of_language(word, options.language)]:
            wordings[fact] = spoken
    if not wordings:
        return {}, NO_WORDS
    prompts: dict[str, tuple[Fact, ...]] = {}
    reason = NO_ROOM
    for _ in range(options.candidates):
        chosen = {fact: words[int(rng.integers(len(words)))] for fact, words in wordings.items()}
        order = list(chosen)
        if style == "plain":
            order.sort(key=lambda fact: _find_place(fact.tag, options.language, vocabulary))
        else:
            order = [order[number] for number in rng.permutation(len(order))]
        for left_out in [None, *reversed(wordings)]:  # the least probable first
            order = [fact for fact in order if fact is not left_out]
            line = join_words([chosen[fact] for fact in order], options.language)
            if order and len(line) <= options.length:
                stated = tuple(fact for fact in wordings if fact in order)
                if find_statements(line, vocabulary) == {(fact.tag, fact.value) for fact in stated}:
                    prompts[line] = stated
                else:
                    reason = CONTRADICTION
                break
    return prompts, None if prompts else reason


def join_words(words: Sequence[str], language: str) -> str:
    """Return a line of words: with spaces in English; in Chinese only between two Latin letters or digits."""
    line = ""
    for word in filter(None, words):
        is_latin = bool(line) and line[-1].isascii() and line[-1].isalnum() and word[0].isascii() and word[0].isalnum()
        line += f" {word}" if line and (language == "en" or is_latin) else word
    return line


def is_of_language(text: str, language: str) -> bool:
    """Return whether a text is of the language: English has no Chinese character, Chinese has one or a digit."""
    has_han = _HAN.search(text) is not None
    return not has_han if language == "en" else has_han or any(letter.isdigit() for letter in text)


def _find_place(tag: str, language: str, vocabulary: Mapping[str, Words]) -> tuple[int, int]:
    order = PLAIN_ORDERS[language]
    return order.index(tag) if tag in order else order.index(""), list(vocabulary).index(tag)
