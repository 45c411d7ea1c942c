"""The bytes of images that the day's table holds, for the rows to write: read a second time, block by block."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_repo import schema
from feature_repo.errors import InvalidInputError
from feature_repo.offline import input_files
from feature_repo.table_format import TableFormat
from producers.catalogue import row_hash


def attach_image_bytes(
    increment: pa.Table, file: Path, block_rows: int, table_format: TableFormat
) -> Iterator[pa.Table]:
    """Yield the rows to write, as in schema.CATALOGUE, with the bytes of their images, which are read again.

    Args:
        increment: the rows, with their number in the whole table as `row`, in ascending order; at least one.
        file: the day's table, Parquet whose column `image` holds bytes.
        block_rows: the largest number of rows of the table in memory at a time.
        table_format: what the user says about the file.

    Raises:
        InvalidInputError: an image is not the one that was compared.
    """
    row = increment["row"].to_numpy()
    start = 0
    for images in input_files.read_column(file, "image", block_rows, table_format=table_format):
        first, end = np.searchsorted(row, [start, start + len(images)])
        rows = increment.slice(first, end - first)
        image_bytes = images.take(pa.array(row[first:end] - start)).cast(pa.binary())
        start += len(images)
        if not row_hash.hash_contents(image_bytes).equals(rows["image_hash"].combine_chunks()):
            break
        yield rows.append_column("image_bytes", image_bytes).select(schema.CATALOGUE.names).cast(schema.CATALOGUE)
    else:
        if start > row[-1]:
            return
    raise InvalidInputError(f"{file}: was changed while it was read; nothing was written: run this again")
