"""Writes the shop's folder: the files that a real shop would provide, and the ground truth for evaluation.

    products.parquet  images/  impressions.parquet  users.parquet  labels.parquet
    truth/products.parquet  truth/users.parquet  truth/impressions.parquet  truth/words.parquet

The same arguments give the same bytes.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import console, schema
from feature_repo.arrow.take import matrix_to_lists
from feature_repo.cores import count_cores
from feature_repo.errors import InvalidInputError, UsageError
from producers.datasets.shop import vocabulary
from producers.datasets.shop.assortment import MISSING, Assortment, make_assortment, make_ids
from producers.datasets.shop.clicks import compute_click_probability, draw_clicks
from producers.datasets.shop.impressions import GeneratedImpressions, generate_impressions
from producers.datasets.shop.offers import Offers, make_offers
from producers.datasets.shop.people import People, age_months, make_people
from producers.datasets.shop.product_images import draw_images, name_further_image
from producers.datasets.shop.titles import Titles, write_titles
from producers.datasets.shop.vocabulary import AGE_WORDS, CATEGORIES, GENDER_WORDS, STYLE, STYLE_NAMES

FILES = ("products.parquet", "impressions.parquet", "users.parquet", "labels.parquet")
FOLDERS = ("images", "truth")
LABELLED_STYLE = ("colour", "pattern")
"""Attributes of STYLE_NAMES that annotators labelled too."""


@dataclass(frozen=True)
class ShopSummary:
    """The sizes of a generated shop."""

    products: int
    """Number of products, as it was asked for."""
    designs: int
    """Number of designs; each has 1 to 4 products."""
    impressions: int
    """Number of impressions, about as many as were asked for."""
    clicks: int
    """Number of impressions that were clicked."""


def make_shop(
    output: Path, *, products: int, users: int, days: int, seed: int, language: str, impressions_per_user: int
) -> ShopSummary:
    """Write a shop to a folder; an earlier shop there is removed first. A progress bar shows the drawing of the images.

    The images are drawn by one process for each CPU. A killed run leaves a part of the shop; the next one removes it.

    Args:
        output: the folder, which is created if missing.
        products: number of products, at least 1.
        users: number of users, at least 1.
        days: days of impressions from parameters.START on, at least 1.
        seed: at least 0; each seed gives another shop.
        language: the language of titles, brands and categories: "zh" or "en".
        impressions_per_user: average number of impressions of a user over all days, at least 1.

    Returns:
        The numbers of products, designs, impressions and clicks.

    Raises:
        UsageError: a number is too small, or the language is unknown. Nothing is changed then.
        InvalidInputError: `output` is a file, or holds anything that is not part of a shop. Nothing is changed then.
    """
    _check_arguments(products, users, days, seed, language, impressions_per_user)
    _clear_folder(output)
    assortment = make_assortment(products, days, seed)
    offers = make_offers(assortment.products, seed)
    titles = write_titles(assortment, language=language, seed=seed)
    people = make_people(users, assortment.designs.style(), seed)
    log = generate_impressions(assortment, people, days=days, impressions=users * impressions_per_user, seed=seed)
    probability = compute_click_probability(assortment, people, log, seed=seed)
    clicked = draw_clicks(probability, seed=seed)

    _write(output / "products.parquet", _build_products(assortment, offers, titles, language))
    _write(output / "users.parquet", _build_users(people))
    _write(output / "labels.parquet", _build_labels(assortment, language))
    _write(output / "impressions.parquet", _build_impressions(people, log, clicked))
    _write(output / "truth" / "products.parquet", _build_true_products(assortment, titles, language))
    _write(output / "truth" / "users.parquet", _build_true_users(people))
    _write(output / "truth" / "words.parquet", _build_words(language))
    ids = pa.array(make_ids("i", len(clicked)))
    _write(output / "truth" / "impressions.parquet", pa.table({"impression_id": ids, "click_probability": probability}))
    with console.make_progress_bar() as bar:
        task = bar.add_task("draw images", total=products)
        further = offers.has_further_image
        for done in draw_images(assortment, output / "images", seed=seed, processes=count_cores(), further=further):
            bar.advance(task, done)
    return ShopSummary(products, len(assortment.designs.category), len(clicked), int(clicked.sum()))


def _check_arguments(products: int, users: int, days: int, seed: int, language: str, impressions_per_user: int) -> None:
    """Raise UsageError if a number is too small or the language is unknown."""
    wanted = {"products": products, "users": users, "days": days, "impressions-per-user": impressions_per_user}
    for name, value in wanted.items():
        if value < 1:
            raise UsageError(f"--{name} is {value}: a shop needs at least 1")
    if seed < 0:
        raise UsageError(f"--seed is {seed}: it must not be negative")
    if language not in vocabulary.LANGUAGES:
        raise UsageError(f"--language is {language!r}: use one of {', '.join(vocabulary.LANGUAGES)}")


def _clear_folder(output: Path) -> None:
    """Create the folder, or remove an earlier shop from it."""
    if output.exists() and not output.is_dir():
        raise InvalidInputError(f"{output} is a file; name a folder for the shop")
    other_files = sorted(p.name for p in output.iterdir() if p.name not in FILES + FOLDERS) if output.exists() else []
    if other_files:
        raise InvalidInputError(
            f"{output} holds {other_files[0]}, which is not part of a shop; name an empty or a new folder"
        )
    for folder in FOLDERS:
        if (output / folder).exists():
            shutil.rmtree(output / folder)
        (output / folder).mkdir(parents=True)
    for file in FILES:
        (output / file).unlink(missing_ok=True)


def _write(file: Path, table: pa.Table) -> None:
    """Write a table as Parquet; a file that is there is replaced."""
    pq.write_table(table, file, compression="zstd")


def _take_or_null(words: list[str], rows: np.ndarray) -> pa.Array:
    """Return `words[index]` for each index; null for MISSING."""
    return pa.array(words, pa.string()).take(pa.array(rows, mask=rows == MISSING))


def _take_level_names(assortment: Assortment, attribute: str, design: np.ndarray) -> pa.Array:
    """Return the name of the level of an attribute of STYLE_NAMES for each design."""
    block = STYLE_NAMES.index(attribute)
    return _take_or_null([level.name for level in STYLE[block]], assortment.designs.levels[design, block])


def _list_category_paths(language: str) -> list[str]:
    """Return the path of each category, in the order of CATEGORIES."""
    return [category.path(language) for category in CATEGORIES]


def _to_timestamps(microseconds: np.ndarray) -> pa.Array:
    """Return microseconds since 1970 UTC as timestamps."""
    return pa.array(microseconds).cast(schema.TIMESTAMP)


def _build_products(assortment: Assortment, offers: Offers, titles: Titles, language: str) -> pa.Table:
    """Return products.parquet: the products as the shop states them, with the optional columns."""
    goods = assortment.products
    missing = goods.image_quality == "missing"
    names = [brand[vocabulary.LANGUAGES.index(language)] for brand in assortment.brands]
    columns = [
        goods.ids,
        titles.text,
        pa.array([f"images/{name}.jpg" for name in goods.ids], mask=missing),
        _take_or_null(_list_category_paths(language), goods.stated_category),
        _take_or_null(names, goods.stated_brand),
        goods.price,
        _to_timestamps(goods.listed_at),
        offers.seller_ids,
        offers.in_stock,
        offers.sales,
        [
            [f"images/{name_further_image(name)}.jpg"] if has_further else None
            for name, has_further in zip(goods.ids, offers.has_further_image.tolist(), strict=True)
        ],
    ]
    return pa.table(columns, schema=pa.schema([*schema.PRODUCTS, *schema.OPTIONAL_PRODUCTS]))


def _build_impressions(people: People, log: GeneratedImpressions, clicked: np.ndarray) -> pa.Table:
    """Return impressions.parquet: schema.IMPRESSIONS and context; ages and genders of unknown children are null."""
    is_unknown = ~people.is_known[log.user]
    months = age_months(people.birthday[log.user], log.timestamp_us).astype(np.float32)
    table = pa.table(
        [
            make_ids("i", len(clicked)),
            _take_or_null(make_ids("u", len(people.is_known)), log.user),
            _take_or_null(make_ids("p", int(log.product.max(initial=0)) + 1), log.product),
            _to_timestamps(log.timestamp_us),
            clicked,
        ],
        schema=schema.IMPRESSIONS,
    )
    gender = _take_or_null(list(schema.CHILD_GENDERS), np.where(is_unknown, MISSING, people.gender[log.user]))
    table = table.append_column("child_age_months", pa.array(months, mask=is_unknown))
    table = table.append_column("child_gender", gender)
    return table.append_column("position", pa.array(log.position.astype(np.int16)))


def _build_users(people: People) -> pa.Table:
    """Return users.parquet: what the shop knows of the users; unknown birthdays and genders are null."""
    is_unknown = ~people.is_known
    birthday = pa.array(people.birthday.astype(np.int32), mask=is_unknown).cast(pa.date32())
    gender = _take_or_null(list(schema.CHILD_GENDERS), np.where(is_unknown, MISSING, people.gender))
    ids = make_ids("u", len(is_unknown))
    return pa.table({"user_id": ids, "child_birthday": birthday, "child_gender": gender})


def _build_labels(assortment: Assortment, language: str) -> pa.Table:
    """Return labels.parquet: one row of each tag for each labelled product; `group` is the id of its design.

    The tags are those of schema.TAGS, then LABELLED_STYLE.
    """
    rows = np.flatnonzero(assortment.products.labelled)
    design = assortment.products.design[rows]
    ids = pa.array(assortment.products.ids).take(rows)
    group = _take_or_null(make_ids("d", len(assortment.designs.category)), design)
    values = {
        "child_age": _take_or_null(list(schema.CHILD_AGES), assortment.designs.age[design]),
        "child_gender": _take_or_null(list(schema.CHILD_GENDERS), assortment.designs.gender[design]),
        "category": _take_or_null(_list_category_paths(language), assortment.designs.category[design]),
    }
    for name in LABELLED_STYLE:
        values[name] = _take_level_names(assortment, name, design)
    wanted = schema.LABELS.append(pa.field("group", pa.string()))
    return pa.concat_tables(
        pa.table([ids, pa.repeat(tag, len(rows)), values[tag], group], schema=wanted)
        for tag in (*schema.TAGS, *LABELLED_STYLE)
    )


def _build_true_products(assortment: Assortment, titles: Titles, language: str) -> pa.Table:
    """Return truth/products.parquet: design, true attributes and quality of each product."""
    designs, design = assortment.designs, assortment.products.design
    columns = {
        "product_id": assortment.products.ids,
        "design_id": _take_or_null(make_ids("d", len(designs.category)), design),
        "child_age": _take_or_null(list(schema.CHILD_AGES), designs.age[design]),
        "child_gender": _take_or_null(list(schema.CHILD_GENDERS), designs.gender[design]),
        "category": _take_or_null(_list_category_paths(language), designs.category[design]),
        "style": matrix_to_lists(designs.style()[design].astype(np.float32)),
    }
    columns |= {name: _take_level_names(assortment, name, design) for name in STYLE_NAMES}
    columns |= {
        "quality": assortment.products.quality,
        "stuffed": titles.is_stuffed,
        "image_quality": pa.array(assortment.products.image_quality.tolist()),
    }
    return pa.table(columns)


def _build_words(language: str) -> pa.Table:
    """Return the words that sellers use for each value of each attribute, one row for each word.

    Values are spelled as in `truth/products.parquet`.
    """
    values: dict[str, list[tuple[str, tuple[str, ...]]]] = {
        "category": [(category.path(language), category.words(language)) for category in CATEGORIES],
        "child_age": list(zip(schema.CHILD_AGES, AGE_WORDS[language], strict=True)),
        "child_gender": list(zip(schema.CHILD_GENDERS, GENDER_WORDS[language], strict=True)),
    }
    for name, levels in zip(STYLE_NAMES, STYLE, strict=True):
        values[name] = [(level.name, level.words(language)) for level in levels if level.words(language)]
    rows = [
        {"attribute": attribute, "value": value, "word": word}
        for attribute, named in values.items()
        for value, words in named
        for word in words
    ]
    return pa.Table.from_pylist(rows)


def _build_true_users(people: People) -> pa.Table:
    """Return truth/users.parquet: the true child and the taste of each user."""
    return pa.table(
        {
            "user_id": make_ids("u", len(people.is_known)),
            "child_birthday": pa.array(people.birthday.astype(np.int32)).cast(pa.date32()),
            "child_gender": _take_or_null(list(schema.CHILD_GENDERS), people.gender),
            "taste": matrix_to_lists(people.taste.astype(np.float32)),
        }
    )
