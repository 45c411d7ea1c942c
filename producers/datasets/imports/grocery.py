"""grocery: shoppers' photos of 81 classes of groceries, and for each class the shop's own image and description.

A photo becomes a product without a title; the shop's image becomes a product with title and description. Labels: the
coarse class under its department, and the set's own split. Each photo is its own group. `pairs.parquet` has the shop
product that each photo shows. The set has no times; every product is dated to the year of publication.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_repo.errors import NotFoundError
from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.schema import CATEGORY_SEPARATOR
from producers.datasets.imports import folder
from producers.datasets.imports.folder import ImportedTables

CLASSES = "classes.csv"
SPLITS = ("train", "val", "test")
PUBLISHED = folder.start_of_year(2019)
IMAGE_SUFFIXES = (".webp", ".jpg")
"""Suffixes that an image file may have; the lists always state .jpg."""

NAME, CLASS, COARSE = "Class Name (str)", "Class ID (int)", "Coarse Class Name (str)"
ICONIC, DESCRIPTION = "Iconic Image Path (str)", "Product Description Path (str)"

INVALID_LINE = "line is not `path, class, coarse class`"
UNKNOWN_CLASS = "class is not in classes.csv"
MISSING_IMAGE = "image is missing"


def read(source: Path, now: datetime) -> ImportedTables:
    """Read classes.csv and the lists of photos train.txt, val.txt and test.txt.

    A line of a list is refused if it is malformed, names an unknown class, or its image file is missing. The id of a
    photo is `SPLIT/FILE`, without the suffix; that of a class's product is `iconic/CLASS NAME`. Of a repeated class id
    the last row is used. Whether the shop's own images exist is not checked here.

    Args:
        source: the folder with these files; the paths in them start there.
        now: not used, because the set has no times.

    Returns:
        The tables `products`, first one product for each class, then the photos in the order of the lists; `labels`,
        one for each photo; and `pairs`, one for each photo with the product that it shows.

    Raises:
        NotFoundError: classes.csv or a list does not exist.
        InvalidInputError: classes.csv cannot be read, is empty or lacks a column.
    """
    del now  # the set has no times that could be in the future
    file = source / CLASSES
    columns = (NAME, CLASS, COARSE, ICONIC, DESCRIPTION)
    table = input_files.read_table(file, columns)
    validation.require_columns(table, columns, file)
    classes = {row[CLASS]: row for row in table.to_pylist()}
    products = [_build_shop_product(source, row) for row in classes.values()]
    labels, pairs, refused = [], [], []
    for split in SPLITS:
        list_file = source / f"{split}.txt"
        if not list_file.is_file():
            raise NotFoundError(f"{list_file}: no such file; expected the list of photos of this split")
        for number, line in enumerate(list_file.read_text().splitlines(), start=1):
            fields = [part.strip() for part in line.split(",")]
            problem = _find_problem(source, fields, classes)
            if problem:
                refused.append(RejectedRow(f"{split} line {number}", "image", problem, line))
                continue
            path, shown_class = Path(fields[0]), classes[fields[1]]
            photo = f"{split}/{path.stem}"
            products.append({"product_id": photo, "image": str(_find_image(source / path)), "updated_at": PUBLISHED})
            labels.append((photo, "category", _category(shown_class), photo, split))
            pairs.append((photo, f"iconic/{shown_class[NAME]}", 1, split))
    label_schema = folder.LABELS.append(pa.field("split", pa.string()))
    return ImportedTables(
        {
            "products": folder.build_products(products, described=True),
            "labels": pa.Table.from_pylist(
                [dict(zip(label_schema.names, row, strict=True)) for row in labels], label_schema
            ),
            "pairs": pa.Table.from_pylist(
                [dict(zip(folder.PAIRS.names, row, strict=True)) for row in pairs], folder.PAIRS
            ),
        },
        refused,
        ["photos of one class may show the same scene; labels and pairs have the set's own split"],
    )


def _build_shop_product(source: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Return the product of a class as values by column name.

    The title is the first line of the class's information file, or else the name of the class.
    """
    description = source / row[DESCRIPTION].lstrip("/")
    information = description.with_name(description.name.replace("_Description", "_Information"))
    title = _read_text(information).splitlines()[0] if _read_text(information) else row[NAME].replace("-", " ")
    return {
        "product_id": f"iconic/{row[NAME]}",
        "title": title.removeprefix("Title:").strip(),
        "image": str(source / row[ICONIC].lstrip("/")),
        "category": _category(row),
        "updated_at": PUBLISHED,
        "description": _read_text(description) or None,
    }


def _category(row: dict[str, Any]) -> str:
    """Return department and coarse class, such as `Fruit>Apple`. The department is the second folder of the path."""
    return CATEGORY_SEPARATOR.join((Path(row[ICONIC].lstrip("/")).parts[1], row[COARSE]))


def _find_problem(source: Path, fields: list[str], classes: dict[str, dict[str, Any]]) -> str | None:
    """Return the reason to refuse a line of a list of photos; None if it is usable."""
    if len(fields) != 3 or not fields[0]:
        return INVALID_LINE
    if fields[1] not in classes:
        return UNKNOWN_CLASS
    return None if _find_image(source / fields[0]) else MISSING_IMAGE


def _find_image(listed: Path) -> Path | None:
    """Return the image file, which may have another suffix than the list states; None if it does not exist."""
    candidates = (listed.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)
    return next((file for file in candidates if file.is_file()), None)


def _read_text(file: Path) -> str:
    """Return the text of a file without white space at its ends; "" if it does not exist."""
    return file.read_text(encoding="utf-8-sig", errors="replace").strip() if file.is_file() else ""
