"""beibei_zh: 88 products of a Chinese mother-and-baby shop with images, too few for statistics.

Labels: the set's category; gender and age if the title states them. Times are read as times of China (UTC+8). Products
with the same title are one group, because the set lists some products twice.
"""

import re
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from producers.datasets.imports import folder
from producers.datasets.imports.folder import ImportedTables, find_age_stage

FILE = "goods.csv"
COLUMNS = ("goods_id", "title", "image", "price", "add_time", "category")
TIME_ZONE = "+08:00"
WRONG_CATEGORY_WORDS = {"87": "女鞋", "88": "双肩包"}
"""Products in a wrong category (童鞋, children's shoes), each with a word of its title that shows this."""
FORMULA_STAGES = {"1": "0-6m", "2": "6-12m", "3": "1-3y", "4": "3-6y"}
"""Age stages of milk powder by its number (段), as Chinese brands use it."""

MISSING_IMAGE = "image is missing: dropped, row kept"
WRONG_CATEGORY = "category is wrong: no category label given, row kept"

_AGES = re.compile(r"(?<![\d/-])(\d+)-(\d+)(岁|个月)")
_MONTHS = {"岁": 12, "个月": 1}


def read(source: Path, now: datetime) -> ImportedTables:
    """Read goods.csv.

    A product whose image file is missing is kept without an image. A price that is not a number becomes infinity, which
    `produce catalogue` sets to null. A time that cannot be read becomes null, which `produce catalogue` refuses. A
    product in a wrong category keeps it, but has no label of the category. Repeated ids are not looked for.

    Args:
        source: the folder with goods.csv and the folder `images`.
        now: not used: times in the future are kept, and `produce catalogue` refuses them.

    Returns:
        The tables `products` and `labels`, in the order of the file. A product has no label of a gender or age that its
        title does not state. Missing images and wrong categories are listed as refused, although the rows are kept.

    Raises:
        NotFoundError: goods.csv does not exist.
        InvalidInputError: it cannot be read, is empty, lacks a column or has a column of a wrong type.
    """
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
        image_path = source / "images" / row["image"] if row["image"] else None
        if image_path and not image_path.is_file():
            refused.append(RejectedRow(product, "image", MISSING_IMAGE, row["image"]))
            image_path = None
        category = row["category"]
        if WRONG_CATEGORY_WORDS.get(product, "\n") in title:
            refused.append(RejectedRow(product, "category", WRONG_CATEGORY, category))
            category = None
        products.append(
            {
                "product_id": product,
                "title": row["title"],
                "image": image_path and str(image_path),
                "category": row["category"],
                "price": price,
                "updated_at": updated_at,
            }
        )
        group = first_of.setdefault(title, product)
        labels += [
            (product, "category", category, group),
            (product, "child_gender", parse_child_gender(title), group),
            (product, "child_age", parse_child_age(title), group),
        ]
    return ImportedTables({"products": folder.build_products(products), "labels": folder.build_labels(labels)}, refused)


def parse_child_gender(title: str) -> str | None:
    """Return "boy", "girl" or "unisex" from words such as 男童, 女宝 or 男女通用.

    None without such a word. 女装 is not one, because it is for women.
    """
    boy = re.search("男女?[童宝孩婴]|男女通用", title)
    girl = re.search("女[童宝孩婴]|男女通用", title)
    if boy and girl:
        return "unisex"
    return "boy" if boy else "girl" if girl else None


def parse_child_age(title: str) -> str | None:
    """Return the age stage (one of CHILD_AGES) that a title states; None if it states none or more than one.

    It is read from one range of years (`1-3岁`) or months (`9-12个月`), else from a single milk powder number (`3段`; 1
    to
    4). The end of a range is exclusive: 1-3岁 is within the stage 1-3y. None also for single ages, for lists such as
    1/3/5岁, for open ranges, and for a range that is not within one stage.
    """
    stated = _AGES.findall(title)
    if len(stated) == 1:
        low, high, unit = stated[0]
        return find_age_stage(int(low) * _MONTHS[unit], int(high) * _MONTHS[unit])
    numbers = re.findall(r"(\d)\+?段", title)
    if "岁" in title or "个月" in title or len(numbers) != 1:
        return None
    return FORMULA_STAGES.get(numbers[0])
