"""grocery: shoppers' photos of 81 classes of groceries, and for each class the shop's own picture and description.

A photo is a product without a title; the shop's picture is one with title and description. Labels: the coarse class
under its department, and the set's own split. Each photo is a group of its own. `pairs.parquet` says which shop
product a photo shows. The set states no time: all is dated to its publication.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_repo.errors import VitrineError
from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.schema import CATEGORY_SEPARATOR
from producers.datasets.imports import folder
from producers.datasets.imports.folder import ImportedTables

CLASSES = "classes.csv"
SPLITS = ("train", "val", "test")
PUBLISHED = folder.start_of_year(2019)
PICTURES = (".webp", ".jpg")
"""Suffixes under which a picture may lie; the lists always write .jpg."""

NAME, CLASS, COARSE = "Class Name (str)", "Class ID (int)", "Coarse Class Name (str)"
ICONIC, DESCRIPTION = "Iconic Image Path (str)", "Product Description Path (str)"

NOT_A_LINE = "line is no `path, class, coarse class`"
NO_CLASS = "class is not in classes.csv"
NO_PICTURE = "picture is missing"


def read(source: Path, now: datetime) -> ImportedTables:
    """Read the set."""
    del now  # the set holds no times that could lie in the future
    file = source / CLASSES
    columns = (NAME, CLASS, COARSE, ICONIC, DESCRIPTION)
    table = input_files.read_table(file, columns)
    validation.require_columns(table, columns, file)
    classes = {row[CLASS]: row for row in table.to_pylist()}
    products = [_shop_product(source, row) for row in classes.values()]
    labels, pairs, refused = [], [], []
    for split in SPLITS:
        list_file = source / f"{split}.txt"
        if not list_file.is_file():
            raise VitrineError(f"{list_file}: no such file; wanted the list of photos of this split")
        for number, line in enumerate(list_file.read_text().splitlines(), start=1):
            fields = [part.strip() for part in line.split(",")]
            problem = _problem(source, fields, classes)
            if problem:
                refused.append(RejectedRow(f"{split} line {number}", "image", problem, line))
                continue
            path, shown = Path(fields[0]), classes[fields[1]]
            photo = f"{split}/{path.stem}"
            products.append({"product_id": photo, "image": str(_picture(source / path)), "updated_at": PUBLISHED})
            labels.append((photo, "category", _category(shown), photo, split))
            pairs.append((photo, f"iconic/{shown[NAME]}", 1, split))
    wanted = folder.LABELS.append(pa.field("split", pa.string()))
    return ImportedTables(
        {
            "products": folder.build_products(products, described=True),
            "labels": pa.Table.from_pylist([dict(zip(wanted.names, row, strict=True)) for row in labels], wanted),
            "pairs": pa.Table.from_pylist(
                [dict(zip(folder.PAIRS.names, row, strict=True)) for row in pairs], folder.PAIRS
            ),
        },
        refused,
        ["photos of one class may show the same scene; the set's own split stands in labels and pairs"],
    )


def _shop_product(source: Path, row: dict[str, Any]) -> dict[str, Any]:
    description = source / row[DESCRIPTION].lstrip("/")
    information = description.with_name(description.name.replace("_Description", "_Information"))
    title = _text(information).splitlines()[0] if _text(information) else row[NAME].replace("-", " ")
    return {
        "product_id": f"iconic/{row[NAME]}",
        "title": title.removeprefix("Title:").strip(),
        "image": str(source / row[ICONIC].lstrip("/")),
        "category": _category(row),
        "updated_at": PUBLISHED,
        "description": _text(description) or None,
    }


def _category(row: dict[str, Any]) -> str:
    """Department and coarse class: `Fruit>Apple`; the department is the folder below that of all shop pictures."""
    return CATEGORY_SEPARATOR.join((Path(row[ICONIC].lstrip("/")).parts[1], row[COARSE]))


def _problem(source: Path, fields: list[str], classes: dict[str, dict[str, Any]]) -> str | None:
    if len(fields) != 3 or not fields[0]:
        return NOT_A_LINE
    if fields[1] not in classes:
        return NO_CLASS
    return None if _picture(source / fields[0]) else NO_PICTURE


def _picture(written: Path) -> Path | None:
    candidates = (written.with_suffix(suffix) for suffix in PICTURES)
    return next((file for file in candidates if file.is_file()), None)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8-sig", errors="replace").strip() if file.is_file() else ""
