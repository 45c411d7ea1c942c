"""Copies the images of a products table into an LMDB or a bucket, each content once, and writes a table of their names.

Images that were downloaded from URLs (`producers/downloads`) are in the LMDB already; here the table gets their keys. A
second run, after a killed one or on the next day, writes only the images that are not in the LMDB yet.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import schema
from feature_repo.errors import InvalidInputError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.images import decoding as images
from feature_repo.images import image_store
from feature_repo.images.decoding import UnusableImageError
from feature_repo.images.picture_folders import LmdbFolder, PictureFolder
from feature_repo.offline import input_files, validation
from feature_repo.offline.validation import RowCheck
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.catalogue import validate
from producers.downloads import download_log

IMAGES_FOLDER, PRODUCTS_FILE = "pictures", "products.parquet"
BLOCK_ROWS = 1024
"""Products whose images are in memory at a time."""


@dataclass(frozen=True)
class PackSummary:
    """What `pack_images` wrote."""

    products: int
    """Rows of the table."""
    images: int
    """Rows whose image is in the LMDB. Rows with equal images share one entry there."""
    unreadable: dict[str, int]
    """The number of images that could not be used, by reason, the most frequent reason first. Rows without an image are
    not among them. `produce catalogue` or `produce embeddings` later reports each, except further images."""
    table: Path
    """The written products.parquet."""

    def __str__(self) -> str:
        lines = [f"{self.table}: {self.products:,} products, {self.images:,} of them with an image in the LMDB"]
        lines += [f"  not read {count:,}: {reason}" for reason, count in self.unreadable.items()]
        urls = self.unreadable.get(_shorten(validate.IMAGE_IS_URL), 0)
        return "\n".join(lines + [f"  {urls:,} products have the URL of an image: --download fetches it"] * bool(urls))


def pack_images(
    products: Path,
    output: Path,
    now: datetime,
    progress: Callable[[int], None] = lambda rows: None,
    table_format: TableFormat = DEFAULT_FORMAT,
    folder: PictureFolder | None = None,
) -> PackSummary:
    """Write the pictures, and the table `output`/products.parquet.

    The table is `products` with every row that fits the header of a CSV, in its order; only the columns `image` and
    `images` differ. Further images are not copied; their paths become absolute. Those that cannot be used are left out,
    and the summary counts their rows.
    An image in the LMDB, also one that was downloaded from its URL, becomes `lmdb://pictures#KEY`, and null stays null.
    The path of a file that cannot be read becomes absolute. Another URL, and a path that leaves the table's folder by
    `..`, stay as they are; a text that is not UTF-8 becomes null.

    An image that cannot be read raises no error and is counted in the summary. Images that are already in the LMDB stay
    there, even if no row refers to them. An earlier products.parquet is replaced at the end; if an error is raised, it
    stays as it was, and the images that were copied by then stay in the LMDB.

    Args:
        products: Parquet or CSV with the columns of schema.PRODUCTS; `image` holds paths or bytes.
        output: the folder to write, which is created if missing.
        now: the current time, which the check of `updated_at` needs. No row is left out here, even if a check fails.
        progress: called after each block of at most BLOCK_ROWS rows with the number of rows done so far.
        table_format: what the user says about the table. Its columns get our names in the written table.
        folder: where the pictures are kept; None takes the LMDB `output`/pictures.

    Raises:
        NotFoundError: `products` does not exist.
        InvalidInputError: the table cannot be read, is empty, lacks a column, has a column of a wrong type, or is
            `output`/products.parquet itself.
        UnavailableError: the LMDB or the bucket cannot be written.
    """
    folder = folder or LmdbFolder(output / IMAGES_FOLDER)
    output.mkdir(parents=True, exist_ok=True)
    if (output / PRODUCTS_FILE).exists() and products.exists() and (output / PRODUCTS_FILE).samefile(products):
        raise InvalidInputError(f"{products}: would be overwritten while it is read; give another --output")
    row_count, image_count, unreadable = 0, 0, Counter[str]()
    with replace_atomically(output / PRODUCTS_FILE) as unfinished:
        writer: pq.ParquetWriter | None = None
        for block in input_files.read_blocks(products, BLOCK_ROWS, schema.PRODUCTS.names, table_format=table_format):
            validation.require_columns(block, schema.PRODUCTS.names, products)
            validated = validate.validate_products(block, row_count, products, now, timezone=table_format.timezone)
            rows = validated.rows
            unreadable.update(_shorten(one.reason) for _, one in validated.repairs if one.column == "images")
            given, utf8_checks = validation.null_invalid_utf8(block, ["image"])
            failed_checks = [
                check for check in (*utf8_checks, *validate.resolve_images(given, products)[2]) if check.bad.any()
            ]
            downloaded = _find_downloaded(given, failed_checks, output, folder)
            paths, image_bytes = rows["image"].to_pylist(), rows["image_bytes"].to_pylist()
            names = [path and re.sub(f"^{image_store.PATH_PREFIX}", image_store.URL_SCHEME, path) for path in paths]
            contents: dict[int, bytes] = {}
            for row, (path, content) in enumerate(zip(paths, image_bytes, strict=True)):
                try:
                    if content is not None or path is not None:
                        contents[row] = content if content is not None else images.read_bytes(Path(path))
                except UnusableImageError as error:
                    unreadable[error.reason] += 1
            keys = folder.write(list(contents.values())) if contents else []
            for row, key in zip(contents, keys, strict=True):
                names[row] = folder.name(key)
            for check in failed_checks:
                failed_rows = [row for row in np.flatnonzero(check.bad).tolist() if row not in downloaded]
                unreadable.update({_shorten(check.reason): len(failed_rows)} if failed_rows else {})
                for row in failed_rows:
                    names[row] = given["image"][row].as_py()
            for row, key in downloaded.items():
                names[row] = folder.name(key)
            table = block.set_column(block.schema.get_field_index("image"), "image", pa.array(names, pa.string()))
            if "images" in table.column_names:
                table = table.set_column(table.schema.get_field_index("images"), "images", rows["images"])
            writer = writer or pq.ParquetWriter(unfinished, table.schema.remove_metadata())
            writer.write_table(table.cast(writer.schema))
            row_count, image_count = row_count + len(block), image_count + len(contents) + len(downloaded)
            progress(row_count)
        if writer is not None:
            writer.close()
    return PackSummary(row_count, image_count, dict(unreadable.most_common()), output / PRODUCTS_FILE)


def _shorten(reason: str) -> str:
    """Return the reason of a repair without what `produce catalogue` does about it."""
    return reason.partition(":")[0]


def _find_downloaded(
    given: pa.Table, failed_checks: Sequence[RowCheck], output: Path, folder: PictureFolder
) -> dict[int, str]:
    """Return the rows of a block whose URL was downloaded, each with the key of its image."""
    urls = {
        row: given["image"][row].as_py()
        for check in failed_checks
        if check.reason == validate.IMAGE_IS_URL
        for row in np.flatnonzero(check.bad).tolist()
    }
    if not urls or not (output / download_log.FILE).exists():
        return {}
    with download_log.open_log(output) as log:
        known = log.read(sorted(set(urls.values())))
    keys = {url: row.key for url, row in known.items() if row.key is not None}
    stored = folder.list_stored(set(keys.values()))
    return {row: keys[url] for row, url in urls.items() if keys.get(url) in stored}
