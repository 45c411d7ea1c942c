"""The columns of a products table that may be missing: seller, stock, sales and further images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.arrow import text
from feature_repo.location import BucketPath
from feature_repo.offline import validation
from feature_repo.offline.validation import RowCheck
from producers.catalogue import image_paths

IMAGE_SEPARATOR = "|"
"""Separates the further images of a product in a text, as in a CSV."""

INVALID_STOCK = "in_stock is neither true nor false: dropped, row kept"
INVALID_SALES = "sales is not a whole number of at least 0: dropped, row kept"
INVALID_IMAGES = "a further image is a URL, leaves the table's folder by `..` or has a backslash: dropped, row kept"


def list_present(names: Sequence[str]) -> list[str]:
    """Return the names of optional columns among the column names of a table, in the order of the schema."""
    return [name for name in schema.OPTIONAL_PRODUCTS.names if name in names]


def parse_optional_columns(
    table: pa.Table, file: Path, pictures: BucketPath | None = None
) -> tuple[dict[str, pa.ChunkedArray], Sequence[RowCheck]]:
    """Return the optional columns of n rows as schema.OPTIONAL_PRODUCTS has them, and checks of dropped values.

    A column that the table lacks is null. So is a value that cannot be read, and a blank seller. Further images are a
    list of paths, or a text of paths that are separated by IMAGE_SEPARATOR. A path becomes absolute as the path of the
    first image does; blank ones, and paths that cannot be used, are left out. A list without a path is null.

    Args:
        table: n rows.
        file: the table's file, where relative paths start; or its folder.
        pictures: as in `image_paths.resolve_paths`.

    Returns:
        The columns by name; and for each column of the table with dropped values a check that marks their rows.

    Raises:
        InvalidInputError: a column has a type that cannot hold its values.
    """
    columns = {
        field.name: pa.chunked_array([pa.nulls(table.num_rows, field.type)]) for field in schema.OPTIONAL_PRODUCTS
    }
    checks: list[RowCheck] = []
    if schema.SELLER_ID in table.column_names:
        sellers = text.normalize_ids(validation.parse_text(table, schema.SELLER_ID, file))
        columns[schema.SELLER_ID] = pc.if_else(pa.array(validation.is_blank(sellers)), None, sellers)
    if "in_stock" in table.column_names:
        columns["in_stock"] = validation.parse_booleans(table, "in_stock", file)
        checks.append(_check_dropped(table, "in_stock", INVALID_STOCK, columns["in_stock"]))
    if "sales" in table.column_names:
        numbers = validation.parse_numbers(table, "sales", file)
        values = numbers.to_numpy()
        is_count = np.isfinite(values) & (values >= 0) & (values == np.floor(values)) & (values < 2.0**53)
        columns["sales"] = pa.chunked_array([pa.array(np.where(is_count, values, 0).astype(np.int64), mask=~is_count)])
        checks.append(_check_dropped(table, "sales", INVALID_SALES, columns["sales"]))
    if "images" in table.column_names:
        columns["images"], is_dropped = _resolve_lists(table, file, pictures)
        checks.append(RowCheck("images", INVALID_IMAGES, is_dropped))
    return columns, checks


def _check_dropped(table: pa.Table, name: str, reason: str, values: pa.ChunkedArray) -> RowCheck:
    """Return a check that marks the rows whose value is null in `values`, and in the table neither null nor blank."""
    is_missing = validation.to_mask(table[name].is_null(nan_is_null=True))
    if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type):
        is_missing |= validation.is_blank(table[name])
    return RowCheck(name, reason, validation.to_mask(values.is_null()) & ~is_missing)


def _resolve_lists(table: pa.Table, file: Path, pictures: BucketPath | None) -> tuple[pa.ChunkedArray, validation.Mask]:
    """Return the column `images` as lists of absolute paths, null without any, and where a path was dropped [n]."""
    column = table["images"].combine_chunks()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        column = pc.split_pattern(validation.parse_text(table, "images", file).combine_chunks(), IMAGE_SEPARATOR)
    row = pc.list_parent_indices(column).to_numpy().astype(np.int64)
    paths = validation.parse_text(pa.table({"images": pc.list_flatten(column)}), "images", file)
    absolute, *refused = image_paths.resolve_paths(paths, file, pictures)
    is_dropped = np.bincount(row[np.logical_or.reduce(refused)], minlength=table.num_rows) > 0
    is_kept = absolute.is_valid().to_numpy()
    counts = np.bincount(row[is_kept], minlength=table.num_rows)
    offsets = np.append(0, np.cumsum(counts)).astype(np.int32)
    lists = pa.ListArray.from_arrays(
        pa.array(offsets), absolute.filter(pa.array(is_kept)).combine_chunks().cast(pa.string())
    )
    return pa.chunked_array([pc.if_else(pa.array(counts > 0), lists, None)]), is_dropped
