"""flipkart_1050: 1,050 products of an Indian marketplace with pictures, 150 in each of seven departments.

Labels: the department as category; the child's gender where "Ideal For" names boys or girls and no adult; the age where
"Age Group" lies within one stage. A group is a brand's shelf (one brand, or first word of the name, and one kind of
thing), so that variants of a design stay together.
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
from producers.datasets.imports.ages import find_stage
from producers.datasets.imports.folder import ImportedTables

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
NO_PICTURE = "picture is missing: set to null, row kept"
NO_TREE = "category tree cannot be read: set to null, row kept"

_SPECIFICATION = r'"key"=>"{}"\s*,\s*"value"=>"([^"]*)"'
_AGES = re.compile(r"(\d+)\s*-\s*(\d+)\s*(month|year)", re.IGNORECASE)
_MONTHS = {"month": 1, "year": 12}


def read(source: Path, now: datetime) -> ImportedTables:
    """Read the set; a discounted price is taken where there is one, else the retail price."""
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
        picture = source / "images" / row["image"] if row["image"] else None
        if picture and not picture.is_file():
            refused.append(RejectedRow(product, "image", NO_PICTURE, row["image"]))
            picture = None
        levels, shelf = shelves(row["product_category_tree"], name, row["brand"])
        if not levels:
            refused.append(RejectedRow(product, "category", NO_TREE, row["product_category_tree"]))
        products.append(
            {
                "product_id": product,
                "title": name,
                "image": picture and str(picture),
                "category": CATEGORY_SEPARATOR.join(levels) or None,
                "brand": row["brand"],
                "price": price,
                "updated_at": updated_at,
                "description": row["description"],
            }
        )
        stated = row["product_specifications"] or ""
        group = shelf or f"{(name or product).split()[0]} {levels[-1] if levels else ''}"
        labels += [
            (product, "category", levels[0] if levels else None, group),
            (product, "child_gender", child_gender(_specified("Ideal For", stated)), group),
            (product, "child_age", child_age(_specified("Age Group", stated)), group),
        ]
    return ImportedTables(
        {"products": folder.build_products(products, described=True), "labels": folder.build_labels(labels)},
        refused,
        ["category labels are the seven departments; prices are in rupees"],
    )


def shelves(tree: str | None, name: str | None, brand: str | None) -> tuple[list[str], str | None]:
    """The levels of a category tree that name a kind of thing, and the brand's shelf below them, if there is one.

    Trees end in `... >> Baby Bath Towels >> Sathiyas Baby Bath Towels >> Sathiyas Cotton Bath Towel (3 ...`: the shelf
    repeats its parent behind the brand, which may stand in the name alone; the last level is the name, cut.
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


def child_gender(ideal_for: str | None) -> str | None:
    """boy, girl, or unisex for both; None where an adult is named too, or no child."""
    words = (ideal_for or "").lower()
    boy, girl = "boy" in words, "girl" in words
    if re.search(r"\b(wo)?m[ae]n", words) or not (boy or girl):
        return None
    return "unisex" if boy and girl else "boy" if boy else "girl"


def child_age(age_group: str | None) -> str | None:
    """The stage of `3 - 6 month` or `0 - 3 Years`; None where it has no unit or lies in several stages."""
    stated = _AGES.search(age_group or "")
    if not stated:
        return None
    months = _MONTHS[stated[3].lower()]
    return find_stage(int(stated[1]) * months, int(stated[2]) * months)


def _specified(key: str, specifications: str) -> str | None:
    found = re.search(_SPECIFICATION.format(key), specifications)
    return found[1] if found else None
