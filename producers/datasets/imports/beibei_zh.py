"""beibei_zh: 88 products of a Chinese mother-and-baby shop with pictures. Too few for statistics.

Labels: the set's category; gender and age where the title states them. Times are taken as those of China. A group is
one title: the set lists some products twice.
"""

import re
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from producers.datasets.imports import folder
from producers.datasets.imports.ages import find_stage
from producers.datasets.imports.folder import ImportedTables

FILE = "goods.csv"
COLUMNS = ("goods_id", "title", "image", "price", "add_time", "category")
TIME_ZONE = "+08:00"
MISPLACED = {"87": "女鞋", "88": "双肩包"}
"""Goods that stand in the wrong category (童鞋), by a word of their titles that shows it."""
FORMULA_STAGES = {"1": "0-6m", "2": "6-12m", "3": "1-3y", "4": "3-6y"}
"""Milk powder by its number (段), as Chinese brands count."""

NO_PICTURE = "picture is missing: set to null, row kept"
WRONG_CATEGORY = "stands in a wrong category: no category label given, row kept"

_AGES = re.compile(r"(?<![\d/-])(\d+)-(\d+)(岁|个月)")
_MONTHS = {"岁": 12, "个月": 1}


def read(source: Path, now: datetime) -> ImportedTables:
    """Read the set."""
    file = source / FILE
    table = input_files.read_table(file, COLUMNS)
    validation.require_columns(table, COLUMNS, file)
    zoned = pc.binary_join_element_wise(table["add_time"], TIME_ZONE, "")
    instants, _ = validation.parse_timestamps(pa.table({"add_time": zoned}), "add_time", file, now)
    prices = validation.parse_numbers(table, "price", file)
    products, labels, refused = [], [], []
    first_of: dict[str, str] = {}
    for row, updated_at, price in zip(table.to_pylist(), instants.to_pylist(), prices.to_pylist(), strict=True):
        product, title = row["goods_id"], row["title"] or ""
        picture = source / "images" / row["image"] if row["image"] else None
        if picture and not picture.is_file():
            refused.append(RejectedRow(product, "image", NO_PICTURE, row["image"]))
            picture = None
        category = row["category"]
        if MISPLACED.get(product, "\n") in title:
            refused.append(RejectedRow(product, "category", WRONG_CATEGORY, category))
            category = None
        products.append(
            {
                "product_id": product,
                "title": row["title"],
                "image": picture and str(picture),
                "category": row["category"],
                "price": price,
                "updated_at": updated_at,
            }
        )
        group = first_of.setdefault(title, product)
        labels += [
            (product, "category", category, group),
            (product, "child_gender", child_gender(title), group),
            (product, "child_age", child_age(title), group),
        ]
    return ImportedTables({"products": folder.build_products(products), "labels": folder.build_labels(labels)}, refused)


def child_gender(title: str) -> str | None:
    """boy, girl, or unisex for both, as 男童, 女宝, 男女孩, 男女通用 and the like say; 女装 is for women."""
    boy = re.search("男女?[童宝孩婴]|男女通用", title)
    girl = re.search("女[童宝孩婴]|男女通用", title)
    if boy and girl:
        return "unisex"
    return "boy" if boy else "girl" if girl else None


def child_age(title: str) -> str | None:
    """The stage of `1-3岁` or `9-12个月`, else of a single `3段`; None for lists (1/3/5岁), open or wide ranges."""
    stated = _AGES.findall(title)
    if len(stated) == 1:
        low, high, unit = stated[0]
        return find_stage(int(low) * _MONTHS[unit], int(high) * _MONTHS[unit])
    numbers = re.findall(r"(\d)\+?段", title)
    if "岁" in title or "个月" in title or len(numbers) != 1:
        return None
    return FORMULA_STAGES.get(numbers[0])
