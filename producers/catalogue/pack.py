"""The pictures of a products table into an LMDB, each content once, and the table that refers to them there.

A second run, after the first was killed or after a day, writes the pictures that are not there yet.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import image_store, images, schema
from feature_repo.errors import VitrineError
from feature_repo.images import UnusableImageError
from feature_repo.offline import input_files, validation
from producers.catalogue import validate

PICTURES, PRODUCTS = "pictures", "products.parquet"
BLOCK_ROWS = 4096
"""Products whose pictures are in memory at a time."""


@dataclass(frozen=True)
class Packed:
    """What was written."""

    products: int
    pictures: int
    """Products that have a picture in the LMDB."""
    unreadable: dict[str, int]
    """Pictures that could not be read, by reason; their paths stay as they are, to be refused by name further on."""
    table: Path

    def __str__(self) -> str:
        lines = [f"{self.table}: {self.products:,} products, {self.pictures:,} of them with a picture in the LMDB"]
        return "\n".join(lines + [f"  not read {count:,}: {reason}" for reason, count in self.unreadable.items()])


def pack(products: Path, out: Path, now: datetime, progress: Callable[[int], None] = lambda rows: None) -> Packed:
    """Write `out`/pictures, an LMDB, and `out`/products.parquet, which is `products` with other values of `image`.

    Args:
        products: Parquet or CSV with the columns of schema.PRODUCTS; `image` paths or bytes.
        now: a time to check rows against; none is left out here.
        progress: told the rows done so far.

    Raises:
        VitrineError: the table cannot be read or lacks a column, or the LMDB cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    if (out / PRODUCTS).exists() and products.exists() and (out / PRODUCTS).samefile(products):
        raise VitrineError(f"{products}: would be written over while it is read; name another --out")
    rows, unreadable, written = 0, Counter[str](), 0
    half = out / f"{PRODUCTS}.half"
    writer: pq.ParquetWriter | None = None
    for block in input_files.read_blocks(products, BLOCK_ROWS, schema.PRODUCTS.names):
        validation.require_columns(block, schema.PRODUCTS.names, products)
        came = validate.check(block, rows, products, now).versions
        given, misspelt = validation.null_invalid_utf8(block, ["image"])
        unfit = [*misspelt, *validate.images_of(given, products)[2]]
        unreadable.update({check.reason.partition(":")[0]: int(check.bad.sum()) for check in unfit if check.bad.any()})
        scheme = image_store.URL_SCHEME
        names = [path and re.sub(f"^{image_store.PATH_PREFIX}", scheme, path) for path in came["image"].to_pylist()]
        held: dict[int, bytes] = {}
        for row, (path, content) in enumerate(
            zip(came["image"].to_pylist(), came["image_bytes"].to_pylist(), strict=True)
        ):
            try:
                if content is not None or path is not None:
                    held[row] = content if content is not None else images.read_bytes(Path(path or ""))
            except UnusableImageError as error:
                unreadable[error.reason] += 1
        keys = image_store.write(out / PICTURES, held.values()) if held else []
        for row, key in zip(held, keys, strict=True):
            names[row] = f"{scheme}{PICTURES}#{key}"
        for row in {row for check in unfit for row in np.flatnonzero(check.bad).tolist()}:
            names[row] = given["image"][row].as_py()
        place = block.schema.get_field_index("image")
        table = block.set_column(place, "image", pa.array(names, pa.string()))
        writer = writer or pq.ParquetWriter(half, table.schema)
        writer.write_table(table.cast(writer.schema))
        rows, written = rows + len(block), written + len(held)
        progress(rows)
    if writer is not None:
        writer.close()
    half.replace(out / PRODUCTS)
    return Packed(rows, written, dict(unreadable.most_common()), out / PRODUCTS)
