"""Titles as sellers write them: some true attributes, and in stuffed titles words that do not apply (蹭词)."""

from dataclasses import dataclass

import numpy as np

from producers.datasets.shop import parameters, vocabulary
from producers.datasets.shop.assortment import Assortment
from producers.datasets.shop.random_streams import make_generator
from producers.datasets.shop.vocabulary import AGE_WORDS, CATEGORIES, FILLERS, GENDER_WORDS, STYLE, STYLE_NAMES


@dataclass(frozen=True)
class Titles:
    """The titles of n products, in the order of the products."""

    text: list[str]
    """The titles; none is empty."""
    is_stuffed: np.ndarray
    """bool [n], whether words were added that do not apply to the product."""


def write_titles(assortment: Assortment, *, language: str, seed: int) -> Titles:
    """Return the titles of all products, in their order. Two products may have the same title.

    Every title has a word for the true category and at least one filler such as "free shipping".

    Args:
        assortment: the products.
        language: the language of the words: "zh" or "en".
        seed: the shop's seed; the same arguments give the same titles.

    Raises:
        KeyError: the language is another one.
    """
    is_stuffed = make_generator(seed, "stuffing").random(len(assortment.products.design)) < parameters.STUFFED
    text = []
    for product, stuffed in enumerate(is_stuffed):
        rng = make_generator(seed, "title", product)
        chunks = _pick_true_words(assortment, product, language, rng)
        if stuffed:
            chunks += _pick_stuffing(assortment, int(assortment.products.design[product]), language, rng)
        chunks += _pick_words(FILLERS[language], int(rng.integers(1, 5)), rng)
        text.append(_join_chunks(_pick_brand(assortment, product, language, rng), chunks, language, rng))
    return Titles(text, is_stuffed)


def _pick_true_words(assortment: Assortment, product: int, language: str, rng: np.random.Generator) -> list[str]:
    """Return words that apply: always the category's, the others with their probability."""
    designs = assortment.designs
    design = assortment.products.design[product]
    level = {name: int(designs.levels[design, i]) for i, name in enumerate(STYLE_NAMES)}
    emblem = STYLE[STYLE_NAMES.index("emblem")][level["emblem"]].words(language)
    attributes = [
        (1.0, CATEGORIES[designs.category[design]].words(language)),
        (parameters.SAYS_AGE, AGE_WORDS[language][designs.age[design]]),
        (parameters.SAYS_GENDER, GENDER_WORDS[language][designs.gender[design]]),
        (parameters.SAYS_COLOUR, vocabulary.COLOURS[level["colour"]].words(language)),
        (parameters.SAYS_PATTERN, vocabulary.PATTERNS[level["pattern"]].words(language)),
        (parameters.SAYS_EMBLEM if emblem else 0.0, emblem),
        (parameters.SAYS_FUNCTION, vocabulary.FUNCTIONS[level["function"]].words(language)),
    ]
    return [_pick_word(words, rng) for probability, words in attributes if rng.random() < probability]


def _pick_stuffing(assortment: Assortment, design: int, language: str, rng: np.random.Generator) -> list[str]:
    """Return at least one word of levels that the design does not have."""
    designs = assortment.designs
    kinds = [
        (parameters.STUFFS_AGE, int(designs.age[design]), AGE_WORDS[language]),
        (parameters.STUFFS_AGE / 2, int(designs.age[design]), AGE_WORDS[language]),
        (parameters.STUFFS_GENDER, int(designs.gender[design]), GENDER_WORDS[language]),
        (parameters.STUFFS_CATEGORY, int(designs.category[design]), [c.words(language) for c in CATEGORIES]),
    ]
    for probability, name in (
        (parameters.STUFFS_COLOUR, "colour"),
        (parameters.STUFFS_PATTERN, "pattern"),
        (parameters.STUFFS_FUNCTION, "function"),
    ):
        block = STYLE_NAMES.index(name)
        kinds.append((probability, int(designs.levels[design, block]), [x.words(language) for x in STYLE[block]]))
    chosen = [kind for kind in kinds if rng.random() < kind[0]] or kinds[:1]
    return [_pick_word(words[_pick_other_level(true, len(words), rng)], rng) for _, true, words in chosen]


def _pick_brand(assortment: Assortment, product: int, language: str, rng: np.random.Generator) -> str:
    """Return the brand's name with probability SAYS_BRAND, otherwise ""."""
    if rng.random() >= parameters.SAYS_BRAND:
        return ""
    return assortment.brands[int(assortment.designs.brand[assortment.products.design[product]])][
        vocabulary.LANGUAGES.index(language)
    ]


def _join_chunks(brand: str, chunks: list[str], language: str, rng: np.random.Generator) -> str:
    """Return a title: the brand, if it is not "", then the chunks in random order. Chinese titles have few spaces."""
    ordered = [chunks[i] for i in rng.permutation(len(chunks))]
    if language == "en":
        return " ".join([brand, *ordered] if brand else ordered)
    title = f"【{brand}】" if brand else ""
    for chunk in ordered:
        would_join_ascii = title[-1:].isascii() and title[-1:].isalnum() and chunk[0].isascii()
        title += f" {chunk}" if title and (would_join_ascii or rng.random() < 0.25) else chunk
    return title


def _pick_word(words: tuple[str, ...], rng: np.random.Generator) -> str:
    """Return the most common word half of the time, otherwise a random word."""
    return words[0] if rng.random() < 0.5 else words[int(rng.integers(len(words)))]


def _pick_words(words: tuple[str, ...], n: int, rng: np.random.Generator) -> list[str]:
    """Return n different random words; all of them if there are fewer."""
    return [words[i] for i in rng.permutation(len(words))[:n]]


def _pick_other_level(true: int, n: int, rng: np.random.Generator) -> int:
    """Return a random level other than the true one."""
    return (true + int(rng.integers(1, n))) % n
