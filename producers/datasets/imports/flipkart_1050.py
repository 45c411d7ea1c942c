"""flipkart_1050: 1,050 products of an Indian marketplace with images, 150 in each of seven departments.

Labels: the department as category; the child's gender if "Ideal For" names boys or girls and no adult; the age if "Age
Group" is within one stage. Products of one brand (or first word of the name) and one kind are one group, so that
variants of a design stay together.
"""

import json
import re
from datetime import datetime
from pathlib import Path

import pyarrow.compute as pc

from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.schema import CATEGORY_SEPARATOR
from producers.datasets.imports import folder
from producers.datasets.imports.folder import ImportedTables, find_age_stage

FILE = "flipkart_com-ecommerce_sample_1050.csv"
COLUMNS = (
    "uniq_id",
    "crawl_timestamp",
    "product_name",
    "product_category_tree",
    "retail_price",
    "discounted_price",
    "image",
    "description",
    "brand",
    "product_specifications",
)
MISSING_IMAGE = "image is missing: dropped, row kept"
INVALID_CATEGORY_TREE = "category tree cannot be read: dropped, row kept"

_SPECIFICATION = r'"key"=>"{}"\s*,\s*"value"=>"([^"]*)"'
_AGES = re.compile(r"(\d+)\s*-\s*(\d+)\s*(month|year)", re.IGNORECASE)
_MONTHS = {"month": 1, "year": 12}


def read(source: Path, now: datetime) -> ImportedTables:
    """Read the set's CSV. The price is the discounted price in rupees, or the retail price if there is none.

    A product whose image file is missing is kept without an image, and one whose category tree cannot be read without a
    category. A price that is not a number becomes infinity, which `produce catalogue` sets to null. A time that cannot
    be read becomes null, which `produce catalogue` refuses. Repeated ids are not looked for.

    Args:
        source: the folder with the CSV (FILE) and the folder `images`.
        now: not used: times in the future are kept, and `produce catalogue` refuses them.

    Returns:
        The tables `products` and `labels`, in the order of the file. A product has no label of a category, gender or
        age that is not stated. Missing images and unreadable category trees are listed as refused, although the rows
        are kept.

    Raises:
        NotFoundError: the CSV does not exist.
        InvalidInputError: it cannot be read, is empty, lacks a column or has a column of a wrong type.
    """
    file = source / FILE
    table = input_files.read_table(file, COLUMNS)
    validation.require_columns(table, COLUMNS, file)
    instants, _ = validation.parse_timestamps(table, "crawl_timestamp", file, now)
    prices = pc.coalesce(
        validation.parse_numbers(table, "discounted_price", file), validation.parse_numbers(table, "retail_price", file)
    )
    products, labels, refused = [], [], []
    for row, updated_at, price in zip(table.to_pylist(), instants.to_pylist(), prices.to_pylist(), strict=True):
        product, name = row["uniq_id"], row["product_name"]
        image_path = source / "images" / row["image"] if row["image"] else None
        if image_path and not image_path.is_file():
            refused.append(RejectedRow(product, "image", MISSING_IMAGE, row["image"]))
            image_path = None
        levels, brand_level = parse_category_tree(row["product_category_tree"], name, row["brand"])
        if not levels:
            refused.append(RejectedRow(product, "category", INVALID_CATEGORY_TREE, row["product_category_tree"]))
        products.append(
            {
                "product_id": product,
                "title": name,
                "image": image_path and str(image_path),
                "category": CATEGORY_SEPARATOR.join(levels) or None,
                "brand": row["brand"],
                "price": price,
                "updated_at": updated_at,
                "description": row["description"],
            }
        )
        stated = row["product_specifications"] or ""
        group = brand_level or f"{(name or product).split()[0]} {levels[-1] if levels else ''}"
        labels += [
            (product, "category", levels[0] if levels else None, group),
            (product, "child_gender", parse_child_gender(_find_specification("Ideal For", stated)), group),
            (product, "child_age", parse_child_age(_find_specification("Age Group", stated)), group),
        ]
    return ImportedTables(
        {"products": folder.build_products(products, described=True), "labels": folder.build_labels(labels)},
        refused,
        ["category labels are the seven departments; prices are in rupees"],
    )


def parse_category_tree(tree: str | None, name: str | None, brand: str | None) -> tuple[list[str], str | None]:
    """Return the levels of a category tree that name a kind of product, and the brand's own level if there is one.

    Trees end in `... >> Baby Bath Towels >> Sathiyas Baby Bath Towels >> Sathiyas Cotton Bath Towel (3 ...`. The
    brand's level repeats the level above it after the brand. The last level is the product's name, truncated.

    Args:
        tree: the set's text: a JSON list whose first entry has the levels, joined by ` >> `.
        name: the product's name, which may begin with the brand; None if missing.
        brand: the product's brand; None if missing.

    Returns:
        The levels, the most general first, without the brand's level and the product's name; the first level always
        counts as a kind. And the brand's level, or None. An unreadable or missing tree gives ([], None).
    """
    try:
        levels = json.loads(tree or "[]")[0].split(" >> ")
    except (ValueError, IndexError, AttributeError, KeyError):
        return [], None
    kinds: list[str] = levels[:1]
    for level in levels[1:]:
        owner = level.removesuffix(" " + kinds[-1]).lower()
        if owner != level.lower() and (owner == (brand or "").lower() or (name or "").lower().startswith(owner)):
            return kinds, level
        if level.endswith("...") or level.split(" (")[0] == name:
            break
        kinds.append(level)
    return kinds, None


def parse_child_gender(ideal_for: str | None) -> str | None:
    """Return "boy", "girl", or "unisex" for both; None if an adult or no child is named, or for None.

    Args:
        ideal_for: the set's entry "Ideal For", such as `Baby Boys`; None if missing.
    """
    words = (ideal_for or "").lower()
    boy, girl = "boy" in words, "girl" in words
    if re.search(r"\b(wo)?m[ae]n", words) or not (boy or girl):
        return None
    return "unisex" if boy and girl else "boy" if boy else "girl"


def parse_child_age(age_group: str | None) -> str | None:
    """Return the age stage (one of CHILD_AGES) of a text such as `3 - 6 month` or `1 - 3 Years`.

    None for None, without a range in months or years, and for a range that is not within one stage, such as `0 - 3
    Years`. Of several ranges the first counts. The end of a range is exclusive: `1 - 3 Years` is within the stage 1-3y.
    """
    stated = _AGES.search(age_group or "")
    if not stated:
        return None
    months = _MONTHS[stated[3].lower()]
    return find_age_stage(int(stated[1]) * months, int(stated[2]) * months)


def _find_specification(key: str, specifications: str) -> str | None:
    """Return the value of the first entry with this key in the text of specifications; None without one."""
    match = re.search(_SPECIFICATION.format(key), specifications)
    return match[1] if match else None
