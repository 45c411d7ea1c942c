"""Checks a block of a products table: its valid rows, the refused rows and the repaired values.

Images are not decoded here. A path is kept and made absolute; the step that encodes the image reports what is wrong
with it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import text
from feature_repo.arrow.text import NormalizedValues
from feature_repo.location import BucketPath
from feature_repo.offline import csv_files, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.offline.validation import RowCheck
from producers.catalogue import image_paths, optional_columns, prices
from producers.catalogue.decimal_mark import DecimalMark

MAX_TITLE_CHARACTERS = 1_000
"""Code points of a title that are kept; encoders read fewer than a hundred."""

MISSING_ID = "product id is null or blank"
NO_CONTENT = "neither a title nor a usable image path"
TITLE_TOO_LONG = f"title cut to {MAX_TITLE_CHARACTERS:,} characters, row kept"
INVALID_PRICE = "price is not a number of at least 0: dropped, row kept"
AMBIGUOUS_PRICE = "price has another value with `--decimal point` than with `--decimal comma`: dropped, row kept"
PATH_LEAVES_FOLDER = "image path leaves the table's folder by `..`: dropped, row kept"
PATH_HAS_BACKSLASH = "image path has a backslash where a slash is expected: dropped, row kept"
IMAGE_IS_URL = "image is a URL, not a file: dropped, row kept"
KEPT_VALUE = frozenset([TITLE_TOO_LONG])
"""Reasons of repairs after which the value is still there. All others drop it: it becomes null."""


@dataclass(frozen=True)
class ValidatedProducts:
    """The outcome for a block of n rows, in the order of the block."""

    product_ids: pa.ChunkedArray
    """[n], normalized texts; null or empty only in refused rows."""
    spellings: dict[int, str]
    """Row number in the block -> its product id as it came, for ids that were normalized."""
    updated_at_us: NDArray[np.int64]
    """[n], microseconds since 1970 UTC; 0 where the time is missing or cannot be read."""
    rows: pa.Table
    """All n rows, refused ones included, with repaired values: product_id, title, image, image_bytes, category, brand,
    price, event_timestamp and the columns of schema.OPTIONAL_PRODUCTS as in schema.CATALOGUE. Only rows with `is_valid`
    may be used."""
    is_valid: NDArray[np.bool_]
    """[n], false for refused rows."""
    refused: list[RejectedRow]
    """One entry for each refused row, with the first check that it failed."""
    repairs: list[tuple[int, RejectedRow]]
    """Repaired and dropped values of valid rows, each with its row number in the block, from 0."""
    normalized: list[NormalizedValues]
    """For each text column with values that were normalized, how many."""
    currencies: Counter[str]
    """Currency -> prices that had it beside the number, refused rows included."""
    given: Counter[str]
    """`price` and `image` -> values that are not null, refused rows included."""


def validate_products(
    table: pa.Table,
    start: int,
    file: Path,
    now: datetime,
    *,
    decimal: DecimalMark | None = None,
    timezone: str | None = None,
    pictures: BucketPath | None = None,
) -> ValidatedProducts:
    """Check a block of rows.

    Ids, titles, categories and brands are normalized (`feature_repo.arrow.text`); prices may have a currency and marks
    (`producers.catalogue.prices`).

    A row is refused if its product id is missing, a text is not UTF-8, `updated_at` is missing, invalid or in the
    future, or it has neither a title nor a usable image path or bytes. A title of more than MAX_TITLE_CHARACTERS is
    cut. A price that is negative, infinite, NaN, ambiguous or not a number becomes null, and so does an image path that
    cannot be used. The columns of schema.OPTIONAL_PRODUCTS are read as `optional_columns` says. Blank titles,
    categories and brands become null without a note. Repeated product ids are not looked for.

    Args:
        table: the block, with the columns of schema.PRODUCTS and any of schema.OPTIONAL_PRODUCTS.
        start: the number of the block's first row in the whole table, from 0. A row without an id is reported as
            `line 17` of a CSV or `row 17` of another table, counted from 1.
        file: the table's file. Relative image paths start at its folder. The file itself is not read.
        now: the current time, with a time zone; rows with a later `updated_at` are refused.
        decimal: the decimal mark of prices that are texts; None if it is not known: ambiguous prices become null.
        timezone: the time zone of an `updated_at` that has none; None refuses it.
        pictures: as in `image_paths.resolve_paths`.

    Raises:
        InvalidInputError: a column has a type that cannot hold its values, such as a price that is a list.
    """
    optional = optional_columns.list_present(table.column_names)
    table, utf8_checks = validation.null_invalid_utf8(table, [*schema.PRODUCTS.names, *optional])
    ids = validation.parse_text(table, schema.PRODUCT_ID, file)
    product_ids = text.normalize_ids(ids)
    names = validation.name_rows(product_ids, start, csv_files.find_lines(table, start))
    updated_at, timestamp_checks = validation.parse_timestamps(table, "updated_at", file, now, timezone)
    raw = {name: validation.parse_text(table, name, file) for name in ("title", "category", "brand")}
    texts = {
        "title": text.normalize_texts(raw["title"]),
        "category": _normalize_repeated(raw["category"], text.normalize_categories),
        "brand": _normalize_repeated(raw["brand"], text.normalize_texts),
    }
    counts = [text.count_normalized(name, raw[name], column) for name, column in texts.items()]
    titles, categories, brands = (_blank_to_null(column) for column in texts.values())
    price_values, is_ambiguous, currencies = _parse_prices(table, file, decimal)
    images, image_bytes, image_checks = resolve_images(table, file, pictures)
    optional_values, optional_checks = optional_columns.parse_optional_columns(table, file, pictures)
    is_negative, is_finite = pc.less(price_values, 0.0), pc.is_finite(price_values)
    has_invalid_price = validation.to_mask(is_negative) | validation.to_mask(pc.invert(is_finite))
    has_no_content = (
        validation.to_mask(pc.is_null(titles))
        & validation.to_mask(pc.is_null(images))
        & validation.to_mask(pc.is_null(image_bytes))
    )
    is_valid, refused = validation.apply_checks(
        table,
        names,
        [
            *utf8_checks,
            RowCheck(schema.PRODUCT_ID, MISSING_ID, validation.is_blank(product_ids)),
            *timestamp_checks,
            RowCheck("image", NO_CONTENT, has_no_content),
        ],
    )
    is_too_long = validation.to_mask(pc.greater(pc.utf8_length(titles), MAX_TITLE_CHARACTERS))
    repair_checks = [
        RowCheck("title", TITLE_TOO_LONG, is_too_long),
        RowCheck("price", INVALID_PRICE, has_invalid_price & ~is_ambiguous),
        RowCheck("price", AMBIGUOUS_PRICE, is_ambiguous),
        *image_checks,
        *optional_checks,
    ]
    columns = {
        schema.PRODUCT_ID: product_ids,
        "title": pc.utf8_slice_codeunits(titles, 0, MAX_TITLE_CHARACTERS),
        "image": images,
        "image_bytes": image_bytes,
        "category": categories,
        "brand": brands,
        "price": pc.if_else(pa.array(has_invalid_price), None, price_values),
        schema.EVENT_TIMESTAMP: updated_at,
        **optional_values,
    }
    updated_at_us = updated_at.cast(pa.int64()).fill_null(0).to_numpy()
    respelled = np.flatnonzero(text.find_changed(ids, product_ids))
    return ValidatedProducts(
        product_ids=product_ids,
        spellings=dict(zip(respelled.tolist(), ids.take(pa.array(respelled)).to_pylist(), strict=True)),
        updated_at_us=updated_at_us,
        rows=pa.table(columns),
        is_valid=is_valid,
        refused=refused,
        repairs=_list_repairs(table, names, repair_checks, is_valid),
        normalized=[
            one for one in (text.count_normalized(schema.PRODUCT_ID, ids, product_ids), *counts) if one is not None
        ],
        currencies=currencies,
        given=Counter({name: len(table) - table[name].null_count for name in ("price", "image")}),
    )


def _list_repairs(
    table: pa.Table, names: pa.ChunkedArray, checks: Sequence[RowCheck], is_valid: NDArray[np.bool_]
) -> list[tuple[int, RejectedRow]]:
    """Return the values of valid rows that fail a check, check by check, each with its row number."""
    repairs: list[tuple[int, RejectedRow]] = []
    for check in checks:
        is_repaired = check.bad & is_valid
        failures = validation.list_failures(table, names, RowCheck(check.column, check.reason, is_repaired))
        repairs += zip(np.flatnonzero(is_repaired).tolist(), failures, strict=True)
    return repairs


def _parse_prices(
    table: pa.Table, file: Path, decimal: DecimalMark | None
) -> tuple[pa.ChunkedArray, validation.Mask, Counter[str]]:
    """Return prices [n], not finite where they are no numbers; where they are ambiguous [n]; and their currencies."""
    texts = prices.as_texts(table["price"])
    if texts is not None:
        parsed = prices.parse_prices(texts, decimal)
        return parsed.numbers, parsed.is_ambiguous, parsed.currencies
    return validation.parse_numbers(table, "price", file), np.zeros(len(table), bool), Counter()


def resolve_images(
    table: pa.Table, file: Path, pictures: BucketPath | None = None
) -> tuple[pa.ChunkedArray, pa.ChunkedArray, Sequence[RowCheck]]:
    """Return absolute image paths, image bytes, and checks of paths that cannot be used.

    A binary `image` column holds bytes; all paths are then null. Otherwise all bytes are null. URLs and paths with
    a part `..`, also absolute ones, become null; so do blank paths, which no check reports. Whether a file exists is
    not looked up.

    Args:
        table: n rows with the column `image`.
        file: the table's file. Relative paths start at its folder, or at `file` itself if it is a folder.
        pictures: as in `image_paths.resolve_paths`.

    Returns:
        The paths [n], text; an image in an LMDB is `lmdb:/FOLDER#KEY`. The bytes [n], binary. And checks of
        IMAGE_IS_URL, PATH_LEAVES_FOLDER and PATH_HAS_BACKSLASH; none if the column holds bytes.

    Raises:
        InvalidInputError: the column holds neither bytes nor text.
    """
    column_type = table["image"].type
    if pa.types.is_binary(column_type) or pa.types.is_large_binary(column_type):
        no_paths = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
        return no_paths, table["image"].cast(pa.binary()), ()
    paths = validation.parse_text(table, "image", file)
    resolved = image_paths.resolve_paths(paths, file, pictures)
    checks = (
        RowCheck("image", IMAGE_IS_URL, resolved.is_url),
        RowCheck("image", PATH_LEAVES_FOLDER, resolved.leaves_folder),
        RowCheck("image", PATH_HAS_BACKSLASH, resolved.has_backslash),
    )
    return resolved.absolute, pa.chunked_array([pa.nulls(table.num_rows, pa.binary())]), checks


def _normalize_repeated(values: pa.ChunkedArray, normalize: Callable[[pa.Array], pa.Array]) -> pa.ChunkedArray:
    """Return a column of few distinct texts normalized, each distinct text once; `values` itself if none changes."""
    encoded = values.combine_chunks().dictionary_encode()
    distinct = normalize(encoded.dictionary)
    return values if distinct is encoded.dictionary else pa.chunked_array([distinct.take(encoded.indices)])


def _blank_to_null(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the texts, null where one is empty or only white space."""
    return pc.if_else(pa.array(validation.is_blank(values)), None, values)
