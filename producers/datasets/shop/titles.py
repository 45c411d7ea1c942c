"""What sellers write: some of the truth in their own words, and in stuffed titles words that do not apply (蹭词)."""

from dataclasses import dataclass

import numpy as np

from producers.datasets.shop import parameters, vocabulary
from producers.datasets.shop.assortment import Assortment
from producers.datasets.shop.random_streams import make_generator
from producers.datasets.shop.vocabulary import AGE_WORDS, CATEGORIES, FILLERS, GENDER_WORDS, STYLE, STYLE_NAMES


@dataclass(frozen=True)
class Titles:
    """One entry per product."""

    text: list[str]
    stuffed: np.ndarray  # bool: whether words were added that do not apply


def write_titles(assortment: Assortment, *, language: str, seed: int) -> Titles:
    """The titles of all products, in `language` (vocabulary.LANGUAGES)."""
    stuffed = make_generator(seed, "stuffing").random(len(assortment.products.design)) < parameters.STUFFED
    text = []
    for product, stuff in enumerate(stuffed):
        rng = make_generator(seed, "title", product)
        chunks = _true_chunks(assortment, product, language, rng)
        if stuff:
            chunks += _stuffing(assortment, int(assortment.products.design[product]), language, rng)
        chunks += _several(FILLERS[language], int(rng.integers(1, 5)), rng)
        text.append(_join(_brand(assortment, product, language, rng), chunks, language, rng))
    return Titles(text, stuffed)


def _true_chunks(assortment: Assortment, product: int, language: str, rng: np.random.Generator) -> list[str]:
    """Words that apply; the category's always, the others more or less often."""
    designs = assortment.designs
    design = assortment.products.design[product]
    level = {name: int(designs.levels[design, i]) for i, name in enumerate(STYLE_NAMES)}
    emblem = STYLE[STYLE_NAMES.index("emblem")][level["emblem"]].words(language)
    said = [
        (1.0, CATEGORIES[designs.category[design]].words(language)),
        (parameters.SAYS_AGE, AGE_WORDS[language][designs.age[design]]),
        (parameters.SAYS_GENDER, GENDER_WORDS[language][designs.gender[design]]),
        (parameters.SAYS_COLOUR, vocabulary.COLOURS[level["colour"]].words(language)),
        (parameters.SAYS_PATTERN, vocabulary.PATTERNS[level["pattern"]].words(language)),
        (parameters.SAYS_EMBLEM if emblem else 0.0, emblem),
        (parameters.SAYS_FUNCTION, vocabulary.FUNCTIONS[level["function"]].words(language)),
    ]
    return [_one(words, rng) for often, words in said if rng.random() < often]


def _stuffing(assortment: Assortment, design: int, language: str, rng: np.random.Generator) -> list[str]:
    """Words of other levels than the design's; at least one."""
    designs = assortment.designs
    kinds = [
        (parameters.STUFFS_AGE, int(designs.age[design]), AGE_WORDS[language]),
        (parameters.STUFFS_AGE / 2, int(designs.age[design]), AGE_WORDS[language]),
        (parameters.STUFFS_GENDER, int(designs.gender[design]), GENDER_WORDS[language]),
        (parameters.STUFFS_CATEGORY, int(designs.category[design]), [c.words(language) for c in CATEGORIES]),
    ]
    for often, name in (
        (parameters.STUFFS_COLOUR, "colour"),
        (parameters.STUFFS_PATTERN, "pattern"),
        (parameters.STUFFS_FUNCTION, "function"),
    ):
        block = STYLE_NAMES.index(name)
        kinds.append((often, int(designs.levels[design, block]), [x.words(language) for x in STYLE[block]]))
    chosen = [kind for kind in kinds if rng.random() < kind[0]] or kinds[:1]
    return [_one(words[_other(true, len(words), rng)], rng) for _, true, words in chosen]


def _brand(assortment: Assortment, product: int, language: str, rng: np.random.Generator) -> str:
    if rng.random() >= parameters.SAYS_BRAND:
        return ""
    return assortment.brands[int(assortment.designs.brand[assortment.products.design[product]])][
        vocabulary.LANGUAGES.index(language)
    ]


def _join(brand: str, chunks: list[str], language: str, rng: np.random.Generator) -> str:
    """The brand, then the chunks in any order; Chinese runs on, but for a space here and there."""
    ordered = [chunks[i] for i in rng.permutation(len(chunks))]
    if language == "en":
        return " ".join([brand, *ordered] if brand else ordered)
    title = f"【{brand}】" if brand else ""
    for chunk in ordered:
        touching = title[-1:].isascii() and title[-1:].isalnum() and chunk[0].isascii()
        title += f" {chunk}" if title and (touching or rng.random() < 0.25) else chunk
    return title


def _one(words: tuple[str, ...], rng: np.random.Generator) -> str:
    """The plainest word half of the time, else any."""
    return words[0] if rng.random() < 0.5 else words[int(rng.integers(len(words)))]


def _several(words: tuple[str, ...], n: int, rng: np.random.Generator) -> list[str]:
    return [words[i] for i in rng.permutation(len(words))[:n]]


def _other(true: int, n: int, rng: np.random.Generator) -> int:
    """Another level than the true one."""
    return (true + int(rng.integers(1, n))) % n
