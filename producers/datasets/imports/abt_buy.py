"""abt_buy: pairs of product descriptions from two shops, labelled as the same product or not, in three splits.

A product is one shop's description, and its id is a hash of the text, so that it has the same id in all splits. There
are no images. The set has no times; every product is dated to the year of publication.
"""

import hashlib
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_repo.errors import NotFoundError
from feature_repo.offline.quarantine import RejectedRow
from producers.datasets.imports import folder
from producers.datasets.imports.folder import ImportedTables

SPLITS = ("train", "valid", "test")
SHOPS = ("abt", "buy")
PUBLISHED = folder.start_of_year(2010)

INVALID_LINE = "line is not `left, right, 0 or 1` with name, description and price on each side"

_SIDE = re.compile(
    r"COL name VAL\b(?P<name>.*)\bCOL description VAL\b(?P<description>.*)\bCOL price VAL\b(?P<price>.*)"
)


def read(source: Path, now: datetime) -> ImportedTables:
    """Read train.txt, valid.txt and test.txt. A price that is not a number becomes null; most prices are empty.

    A line that cannot be parsed, also a blank one, is refused. A description that occurs in several lines is one
    product. A pair that occurs in several lines is in `pairs` as often.

    Args:
        source: the folder with the three files, which have no header.
        now: not used, because the set has no times.

    Returns:
        The tables `products`, in the order in which they are first named, and `pairs`, in the order of the lines of
        train, valid and test.

    Raises:
        NotFoundError: one of the files does not exist.
    """
    del now  # the set has no times that could be in the future
    products: dict[str, dict[str, Any]] = {}
    pairs, refused = [], []
    for split in SPLITS:
        file = source / f"{split}.txt"
        if not file.is_file():
            raise NotFoundError(f"{file}: no such file; expected the pairs of this split")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            fields = line.split("\t")
            sides = [_SIDE.fullmatch(text.strip()) for text in fields[:2]]
            if len(fields) != 3 or fields[2].strip() not in ("0", "1") or not all(sides):
                refused.append(RejectedRow(f"{split} line {number}", "line", INVALID_LINE, line))
                continue
            both = [_product(shop, side) for shop, side in zip(SHOPS, sides, strict=True) if side]
            products.update({product["product_id"]: product for product in both})
            left, right = (product["product_id"] for product in both)
            pairs.append({"left": left, "right": right, "same": int(fields[2]), "split": split})
    return ImportedTables(
        {
            "products": folder.build_products(list(products.values()), described=True),
            "pairs": pa.Table.from_pylist(pairs, schema=folder.PAIRS),
        },
        refused,
        [f"{sum(pair['same'] for pair in pairs):,} of the pairs are the same product"],
    )


def _product(shop: str, side: re.Match[str]) -> dict[str, Any]:
    """Return one side of a pair as the values of a product by column name."""
    name, description, price = (text.strip() for text in side.groups())
    text = "\n".join((name, description, price))
    return {
        "product_id": f"{shop}-{hashlib.sha1(text.encode()).hexdigest()[:12]}",
        "title": name or None,
        "price": _price(price),
        "updated_at": PUBLISHED,
        "seller_id": shop,
        "description": description or None,
    }


def _price(text: str) -> float | None:
    """Return the text as a number; None if it is not one."""
    try:
        return float(text)
    except ValueError:
        return None
