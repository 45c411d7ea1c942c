"""The truth about the goods: designs with their attributes, and the products that sellers make of them.

A design is one thing that is made: it has a category, a child age stage, a child gender, a style and a quality. One to
four sellers sell it, each as a product of its own with its own title, crop and price, listed at its own time.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from feature_repo.schema import CHILD_AGES, CHILD_GENDERS
from producers.datasets.shop import parameters, vocabulary
from producers.datasets.shop.random_streams import make_generator

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DAY = 86_400_000_000  # microseconds
START = int(np.datetime64(parameters.START, "us").astype(np.int64))
"""Microseconds since 1970, UTC."""
MISSING = -1


@dataclass(frozen=True)
class Designs:
    """m designs, one array entry each; integers are positions in the vocabulary."""

    category: Ints
    age: Ints  # in CHILD_AGES
    gender: Ints  # in CHILD_GENDERS
    levels: Ints  # [m, 5]: of the attributes of vocabulary.STYLE, in its order
    second_colour: Ints  # of the trimmings
    apparent_age: Floats  # in stages: how old the child looks that the thing was cut for
    brand: Ints
    price: Floats
    quality: Floats

    def style(self) -> Floats:
        """[m, STYLE_WIDTH]: the levels as one-hot blocks side by side."""
        blocks = [np.eye(len(levels))[self.levels[:, i]] for i, levels in enumerate(vocabulary.STYLE)]
        return np.concatenate(blocks, axis=1)


@dataclass(frozen=True)
class Products:
    """n products, in the order in which they were listed."""

    design: Ints
    seller: Ints
    listed_at: Ints  # microseconds, UTC; existing ones within the 30 days before START
    price: Floats
    quality: Floats  # effect on the log-odds of a click, the design's share included
    popularity: Floats  # log of the exposure weight
    stated_category: Ints  # what the seller put, MISSING if nothing
    stated_brand: Ints
    image_quality: npt.NDArray[np.str_]  # good, blurred, grey, small or missing
    labelled: Bools

    @property
    def ids(self) -> list[str]:
        return identifiers("p", len(self.design))


@dataclass(frozen=True)
class Assortment:
    """What is for sale."""

    designs: Designs
    products: Products
    brands: tuple[tuple[str, str], ...]  # (Chinese, romanised)


def identifiers(letter: str, n: int) -> list[str]:
    """`n` ids in order, such as p00001: sorted as text they are sorted by number."""
    width = max(5, len(str(n)))
    return [f"{letter}{i:0{width}d}" for i in range(1, n + 1)]


def make_assortment(products: int, days: int, seed: int) -> Assortment:
    """The designs and products of the shop of `seed`; listing times lie before START + `days`."""
    rng = make_generator(seed, "assortment")
    per_design = 1 + rng.choice(4, size=products, p=parameters.SELLERS_PER_DESIGN)
    design_of = np.repeat(np.arange(products), per_design)[:products]
    designs = _designs(int(design_of[-1]) + 1, seed)
    return Assortment(designs, _products(designs, rng.permutation(design_of), days, seed), _brands(seed))


def persona_weights() -> Floats:
    """[personas, STYLE_WIDTH]: 1 where the level belongs to the persona, else 0."""
    names = [level.name for levels in vocabulary.STYLE for level in levels]
    return np.array([[float(name in liked) for name in names] for liked in vocabulary.PERSONAS.values()])


def draw_rows(rng: np.random.Generator, weights: Floats) -> Ints:
    """One column per row of `weights` [n, k], with probability in proportion to its weight."""
    bounds = np.cumsum(weights, axis=1)
    return (rng.random(len(weights))[:, None] * bounds[:, -1:] >= bounds).sum(axis=1)


def _designs(m: int, seed: int) -> Designs:
    rng = make_generator(seed, "designs")
    categories = vocabulary.CATEGORIES
    category = draw_rows(rng, np.tile([c.share for c in categories], (m, 1)))
    age = draw_rows(rng, np.array([c.ages for c in categories])[category])
    assert len(CHILD_AGES) == len(categories[0].ages)
    genders = np.array([(c.boys, c.girls, 1 - c.boys - c.girls) for c in categories])
    gender = draw_rows(rng, genders[category])
    # In the order of CHILD_GENDERS; sweet things are made for girls more often, and so on: colour alone does not tell.
    lean = np.array([[0.45, 1.6, 1.0, 1.3, 1.0], [1.7, 0.6, 1.0, 0.9, 1.1], [1.0, 1.0, 1.3, 1.0, 1.0]])
    assert len(lean) == len(CHILD_GENDERS)
    persona = draw_rows(rng, lean[gender])
    likely = 1 + (parameters.PERSONA_FIDELITY - 1) * persona_weights()[persona]
    edges = np.cumsum([0, *map(len, vocabulary.STYLE)])
    levels = np.stack([draw_rows(rng, likely[:, a:b]) for a, b in pairwise(edges)], axis=1)
    colours = len(vocabulary.COLOURS)
    brand = np.minimum((rng.random(m) ** 1.8 * parameters.BRANDS).astype(np.int64), parameters.BRANDS - 1)
    brand_class = make_generator(seed, "brands", 1).normal(size=(2, parameters.BRANDS))  # quality, price
    usual = np.array([c.price for c in categories])[category]
    return Designs(
        category=category,
        age=age,
        gender=gender,
        levels=levels,
        second_colour=(levels[:, 0] + rng.integers(2, colours - 1, size=m)) % colours,
        apparent_age=age + rng.normal(0, parameters.APPARENT_AGE_SPREAD, size=m),
        brand=brand,
        price=usual * np.exp(0.25 * brand_class[1][brand] + rng.normal(0, 0.30, size=m) + 0.06 * age),
        quality=parameters.QUALITY_SPREAD * np.sqrt(0.5) * rng.normal(size=m)
        + parameters.BRAND_SPREAD * brand_class[0][brand],
    )


def _products(designs: Designs, design: Ints, days: int, seed: int) -> Products:
    rng = make_generator(seed, "products")
    n = len(design)
    existing = np.arange(n) < np.ceil(n * parameters.EXISTING_SHARE)
    # New products are listed before ten in the morning, so that most of their first day is left to them.
    day = np.sort(rng.integers(0, days, size=n))
    listed = START + day * DAY + (rng.random(n) * DAY * 10 / 24).astype(np.int64)
    before = START - (rng.random(n) * 30 * DAY).astype(np.int64) - 1
    listed_at = np.where(existing, np.sort(before)[np.cumsum(existing) - 1], listed)
    order = np.argsort(listed_at, kind="stable")
    listed_at, design = listed_at[order], design
    own_quality = parameters.QUALITY_SPREAD * np.sqrt(0.5) * rng.normal(size=n)
    quality = designs.quality[design] + own_quality
    true_category = designs.category[design]
    other = (true_category + rng.integers(1, len(vocabulary.CATEGORIES), size=n)) % len(vocabulary.CATEGORIES)
    luck = rng.random(n)
    stated = np.where(luck < parameters.WRONG_CATEGORY, other, true_category)
    stated[luck > 1 - parameters.MISSING_CATEGORY] = MISSING
    low = parameters.LOW_QUALITY_IMAGE
    kinds = ["missing", *low, "good"]
    shares = [parameters.MISSING_IMAGE, *low.values()]
    image_quality = rng.choice(kinds, size=n, p=[*shares, 1 - sum(shares)])
    seen_by_annotators = listed_at < START + days * DAY * (1 - parameters.NEWEST_SHARE)
    chosen = rng.random(len(designs.category)) < parameters.LABELLED_DESIGNS
    return Products(
        design=design,
        seller=rng.integers(0, parameters.SELLERS, size=n),
        listed_at=listed_at,
        price=np.round(designs.price[design] * np.exp(rng.normal(0, 0.12, size=n)) + 0.4) - 0.1,
        quality=quality,
        popularity=parameters.POPULARITY_SPREAD * rng.normal(size=n) + 0.6 * quality,
        stated_category=stated,
        stated_brand=np.where(rng.random(n) < parameters.MISSING_BRAND, MISSING, designs.brand[design]),
        image_quality=image_quality,
        labelled=chosen[design] & seen_by_annotators,
    )


def _brands(seed: int) -> tuple[tuple[str, str], ...]:
    syllables = vocabulary.BRAND_SYLLABLES
    numbers = make_generator(seed, "brands", 0).choice(len(syllables) ** 3, size=parameters.BRANDS, replace=False)
    triples = [[syllables[n // 256 % 16], syllables[n // 16 % 16], syllables[n % 16]] for n in map(int, numbers)]
    return tuple(("".join(zh for zh, _ in t), "".join(en for _, en in t).capitalize()) for t in triples)
