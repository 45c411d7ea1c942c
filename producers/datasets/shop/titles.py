"""What sellers write: some of the truth in their own words, and in stuffed titles words that do not apply (蹭词)."""

from dataclasses import dataclass

import numpy as np

from producers.datasets.shop import frozen, vocabulary
from producers.datasets.shop.chance import stream
from producers.datasets.shop.vocabulary import AGE_WORDS, CATEGORIES, FILLERS, GENDER_WORDS, STYLE, STYLE_NAMES
from producers.datasets.shop.world import World


@dataclass(frozen=True)
class Titles:
    """One entry per product."""

    text: list[str]
    stuffed: np.ndarray  # bool: whether words were added that do not apply


def write_titles(world: World, *, language: str, seed: int) -> Titles:
    """The titles of all products, in `language` (vocabulary.LANGUAGES)."""
    stuffed = stream(seed, "stuffing").random(len(world.products.design)) < frozen.STUFFED
    text = []
    for product, stuff in enumerate(stuffed):
        chance = stream(seed, "title", product)
        chunks = _true_chunks(world, product, language, chance)
        if stuff:
            chunks += _stuffing(world, int(world.products.design[product]), language, chance)
        chunks += _several(FILLERS[language], int(chance.integers(1, 5)), chance)
        text.append(_join(_brand(world, product, language, chance), chunks, language, chance))
    return Titles(text, stuffed)


def _true_chunks(world: World, product: int, language: str, chance: np.random.Generator) -> list[str]:
    """Words that apply; the category's always, the others more or less often."""
    designs = world.designs
    design = world.products.design[product]
    level = {name: int(designs.levels[design, i]) for i, name in enumerate(STYLE_NAMES)}
    emblem = STYLE[STYLE_NAMES.index("emblem")][level["emblem"]].words(language)
    said = [
        (1.0, CATEGORIES[designs.category[design]].words(language)),
        (frozen.SAYS_AGE, AGE_WORDS[language][designs.age[design]]),
        (frozen.SAYS_GENDER, GENDER_WORDS[language][designs.gender[design]]),
        (frozen.SAYS_COLOUR, vocabulary.COLOURS[level["colour"]].words(language)),
        (frozen.SAYS_PATTERN, vocabulary.PATTERNS[level["pattern"]].words(language)),
        (frozen.SAYS_EMBLEM if emblem else 0.0, emblem),
        (frozen.SAYS_FUNCTION, vocabulary.FUNCTIONS[level["function"]].words(language)),
    ]
    return [_one(words, chance) for often, words in said if chance.random() < often]


def _stuffing(world: World, design: int, language: str, chance: np.random.Generator) -> list[str]:
    """Words of other levels than the design's; at least one."""
    designs = world.designs
    kinds = [
        (frozen.STUFFS_AGE, int(designs.age[design]), AGE_WORDS[language]),
        (frozen.STUFFS_AGE / 2, int(designs.age[design]), AGE_WORDS[language]),
        (frozen.STUFFS_GENDER, int(designs.gender[design]), GENDER_WORDS[language]),
        (frozen.STUFFS_CATEGORY, int(designs.category[design]), [c.words(language) for c in CATEGORIES]),
    ]
    for often, name in (
        (frozen.STUFFS_COLOUR, "colour"),
        (frozen.STUFFS_PATTERN, "pattern"),
        (frozen.STUFFS_FUNCTION, "function"),
    ):
        block = STYLE_NAMES.index(name)
        kinds.append((often, int(designs.levels[design, block]), [x.words(language) for x in STYLE[block]]))
    chosen = [kind for kind in kinds if chance.random() < kind[0]] or kinds[:1]
    return [_one(words[_other(true, len(words), chance)], chance) for _, true, words in chosen]


def _brand(world: World, product: int, language: str, chance: np.random.Generator) -> str:
    if chance.random() >= frozen.SAYS_BRAND:
        return ""
    return world.brands[int(world.designs.brand[world.products.design[product]])][vocabulary.LANGUAGES.index(language)]


def _join(brand: str, chunks: list[str], language: str, chance: np.random.Generator) -> str:
    """The brand, then the chunks in any order; Chinese runs on, but for a space here and there."""
    ordered = [chunks[i] for i in chance.permutation(len(chunks))]
    if language == "en":
        return " ".join([brand, *ordered] if brand else ordered)
    title = f"【{brand}】" if brand else ""
    for chunk in ordered:
        touching = title[-1:].isascii() and title[-1:].isalnum() and chunk[0].isascii()
        title += f" {chunk}" if title and (touching or chance.random() < 0.25) else chunk
    return title


def _one(words: tuple[str, ...], chance: np.random.Generator) -> str:
    """The plainest word half of the time, else any."""
    return words[0] if chance.random() < 0.5 else words[int(chance.integers(len(words)))]


def _several(words: tuple[str, ...], n: int, chance: np.random.Generator) -> list[str]:
    return [words[i] for i in chance.permutation(len(words))[:n]]


def _other(true: int, n: int, chance: np.random.Generator) -> int:
    """Another level than the true one."""
    return (true + int(chance.integers(1, n))) % n
