"""The ground truth about products: designs with their attributes, and the products that sellers make of them.

A design has a category, a child age stage, a child gender, a style and a quality. One to four sellers sell it, each as
a product with its own title, image, price and listing time.
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
    """The true attributes of m designs. Each field has shape [m], one element for each design, unless it says more."""

    category: Ints
    """Index into vocabulary.CATEGORIES."""
    age: Ints
    """Index into CHILD_AGES: the stage of the child that the design is made for."""
    gender: Ints
    """Index into CHILD_GENDERS."""
    levels: Ints
    """[m, 5], for each attribute of vocabulary.STYLE, in its order, an index into its levels."""
    second_colour: Ints
    """Index into vocabulary.COLOURS, for accents; never the design's own colour."""
    apparent_age: Floats
    """The age of the child that the design looks made for: an index into CHILD_AGES with a fraction, not clipped."""
    brand: Ints
    """Index into `Assortment.brands`."""
    price: Floats
    """In the shop's currency, before each seller's own deviation."""
    quality: Floats
    """Effect on the log-odds of a click of all products of the design."""

    def style(self) -> Floats:
        """Return the levels as concatenated one-hot blocks, float64 [m, STYLE_WIDTH], in the order of vocabulary.STYLE.

        Each row has one 1 in the block of each attribute and is 0 elsewhere.
        """
        blocks = [np.eye(len(levels))[self.levels[:, i]] for i, levels in enumerate(vocabulary.STYLE)]
        return np.concatenate(blocks, axis=1)


@dataclass(frozen=True)
class Products:
    """n products, sorted by listing time. Each field has shape [n], one element for each product."""

    design: Ints
    """Index into the designs."""
    seller: Ints
    """Number of the seller, from 0 to SELLERS - 1."""
    listed_at: Ints
    """Microseconds since 1970 UTC. The products that exist when the log starts are listed within the 30 days before."""
    price: Floats
    """In the shop's currency."""
    quality: Floats
    """Effect on the log-odds of a click, including the design's."""
    popularity: Floats
    """Natural log of the weight with which the product is shown."""
    stated_category: Ints
    """Index into vocabulary.CATEGORIES, as the seller states it, perhaps wrongly; MISSING if not stated."""
    stated_brand: Ints
    """Index into `Assortment.brands`, always the true one; MISSING if not stated."""
    image_quality: npt.NDArray[np.str_]
    """One of "good", "blurred", "grey", "small" and "missing"."""
    labelled: Bools
    """Whether annotators labelled the product."""

    @property
    def ids(self) -> list[str]:
        """The n product ids, p00001 for the product listed first."""
        return make_ids("p", len(self.design))


@dataclass(frozen=True)
class Assortment:
    """The designs, products and brands of a shop."""

    designs: Designs
    """The designs that the products are made of; each has at least one product."""
    products: Products
    """The products, sorted by listing time."""
    brands: tuple[tuple[str, str], ...]
    """The name of each brand, in Chinese and romanised."""


def make_ids(letter: str, n: int) -> list[str]:
    """Return n ids such as p00001, counted from 1; none if n is 0.

    All have the same number of digits, at least five, so sorting them as text keeps their order.

    Args:
        letter: the text that each id begins with.
        n: the number of ids.
    """
    width = max(5, len(str(n)))
    return [f"{letter}{i:0{width}d}" for i in range(1, n + 1)]


def make_assortment(products: int, days: int, seed: int) -> Assortment:
    """Return the designs and products of a shop.

    Args:
        products: the number of products, at least 1. The number of designs follows from it.
        days: length of the log in days, at least 1; all listing times are before START + days.
        seed: the shop's seed, at least 0; the same arguments give the same shop.
    """
    rng = make_generator(seed, "world")
    per_design = 1 + rng.choice(4, size=products, p=parameters.SELLERS_PER_DESIGN)
    design_of = np.repeat(np.arange(products), per_design)[:products]
    designs = _make_designs(int(design_of[-1]) + 1, seed)
    return Assortment(designs, _make_products(designs, rng.permutation(design_of), days, seed), _make_brands(seed))


def persona_weights() -> Floats:
    """Return float64 [personas, STYLE_WIDTH]: 1.0 where vocabulary.PERSONAS lists the level for the persona, else 0.0.

    Rows are in the order of vocabulary.PERSONAS, columns in that of the levels of vocabulary.STYLE.
    """
    names = [level.name for levels in vocabulary.STYLE for level in levels]
    return np.array([[float(name in liked) for name in names] for liked in vocabulary.PERSONAS.values()])


def draw_rows(rng: np.random.Generator, weights: Floats) -> Ints:
    """Draw a column index, 0 to k - 1, for each of n rows: int64 [n].

    Args:
        rng: the generator, which is advanced by n numbers.
        weights: [n, k], at least 0, in each row not all 0. The probability of a column is proportional to its weight
            in the row.
    """
    bounds = np.cumsum(weights, axis=1)
    return (rng.random(len(weights))[:, None] * bounds[:, -1:] >= bounds).sum(axis=1)


def _make_designs(m: int, seed: int) -> Designs:
    """Return m random designs."""
    rng = make_generator(seed, "designs")
    categories = vocabulary.CATEGORIES
    category = draw_rows(rng, np.tile([c.share for c in categories], (m, 1)))
    age = draw_rows(rng, np.array([c.ages for c in categories])[category])
    assert len(CHILD_AGES) == len(categories[0].ages)
    genders = np.array([(c.boys, c.girls, 1 - c.boys - c.girls) for c in categories])
    gender = draw_rows(rng, genders[category])
    # [genders, personas]: how often each persona is made for each gender, so that colour alone does not decide it.
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


def _make_products(designs: Designs, design: Ints, days: int, seed: int) -> Products:
    """Return random products, sorted by listing time.

    Args:
        designs: the designs.
        design: [n], the design of each product.
        days: length of the log in days.
        seed: the shop's seed.
    """
    rng = make_generator(seed, "products")
    n = len(design)
    existing = np.arange(n) < np.ceil(n * parameters.EXISTING_SHARE)
    # New products are listed before 10:00, so that they have most of their first day.
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


def _make_brands(seed: int) -> tuple[tuple[str, str], ...]:
    """Return BRANDS different invented names of three syllables, in Chinese and romanised."""
    syllables = vocabulary.BRAND_SYLLABLES
    numbers = make_generator(seed, "brands", 0).choice(len(syllables) ** 3, size=parameters.BRANDS, replace=False)
    triples = [[syllables[n // 256 % 16], syllables[n // 16 % 16], syllables[n % 16]] for n in map(int, numbers)]
    return tuple(("".join(zh for zh, _ in t), "".join(en for _, en in t).capitalize()) for t in triples)
