"""A block of a products table checked: its usable rows as versions, the refused, the repairs.

Pictures are not decoded here: a path is kept, made absolute, and the step that encodes it says what was wrong with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import image_store, schema
from feature_repo.offline import validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.offline.validation import Check

MAX_TITLE = 1_000
"""Code points of a title that are kept; encoders read fewer than a hundred."""

NO_ID = "product id is null or blank"
NOTHING = "neither a title nor a usable image path"
LONG_TITLE = f"title cut to {MAX_TITLE:,} characters, row kept"
BAD_PRICE = "price is no number from 0 on: set to null, row kept"
ESCAPES = "image path leads out of the table's folder by `..`: set to null, row kept"
A_URL = "image is a URL, no file: set to null, row kept"


@dataclass(frozen=True)
class Arriving:
    """What one block of a table brought."""

    ids: pa.ChunkedArray
    """[rows], as text."""
    instants: NDArray[np.int64]
    """[rows] microseconds; 0 where there is none."""
    versions: pa.Table
    """[rows] in the columns of schema.CATALOGUE that the shop says; only those of `passed` are sound."""
    passed: NDArray[np.bool_]
    """[rows]"""
    refused: list[RejectedRow]
    notes: list[tuple[int, RejectedRow]]
    """Values that were repaired, each with its row in the block."""


def check(table: pa.Table, start: int, file: Path, now: datetime) -> Arriving:
    """Check a block of rows, of which the first is row `start` of the whole table, counted from 0."""
    table, misspelt = validation.null_invalid_utf8(table, schema.PRODUCTS.names)
    ids = validation.parse_text(table, schema.PRODUCT_ID, file)
    names = validation.name_rows(ids, start)
    instants, bad_instants = validation.parse_timestamps(table, "updated_at", file, now)
    titles = _blank_to_null(validation.parse_text(table, "title", file))
    prices = validation.parse_numbers(table, "price", file)
    images, image_bytes, bad_images = images_of(table, file)
    bad_price = validation.to_mask(pc.less(prices, 0.0)) | validation.to_mask(pc.invert(pc.is_finite(prices)))
    has_nothing = (
        validation.to_mask(pc.is_null(titles))
        & validation.to_mask(pc.is_null(images))
        & validation.to_mask(pc.is_null(image_bytes))
    )
    passed, refused = validation.apply_checks(
        table,
        names,
        [
            *misspelt,
            Check(schema.PRODUCT_ID, NO_ID, validation.is_blank(ids)),
            *bad_instants,
            Check("image", NOTHING, has_nothing),
        ],
    )
    repairs = [
        Check("title", LONG_TITLE, validation.to_mask(pc.greater(pc.utf8_length(titles), MAX_TITLE))),
        Check("price", BAD_PRICE, bad_price),
        *bad_images,
    ]
    notes: list[tuple[int, RejectedRow]] = []
    for repair in repairs:
        bad = repair.bad & passed
        notes += zip(
            np.flatnonzero(bad).tolist(),
            validation.list_failures(table, names, Check(repair.column, repair.reason, bad)),
            strict=True,
        )
    columns = {
        schema.PRODUCT_ID: ids,
        "title": pc.utf8_slice_codeunits(titles, 0, MAX_TITLE),
        "image": images,
        "image_bytes": image_bytes,
        "category": _blank_to_null(validation.parse_text(table, "category", file)),
        "brand": _blank_to_null(validation.parse_text(table, "brand", file)),
        "price": pc.if_else(pa.array(bad_price), None, prices),
        schema.EVENT_TIMESTAMP: instants,
    }
    ticks = instants.cast(pa.int64()).fill_null(0).to_numpy()
    return Arriving(ids, ticks, pa.table(columns), passed, refused, notes)


def images_of(table: pa.Table, file: Path) -> tuple[pa.ChunkedArray, pa.ChunkedArray, Sequence[Check]]:
    """Absolute paths, bytes, and the paths that name no file of ours."""
    held = table["image"].type
    if pa.types.is_binary(held) or pa.types.is_large_binary(held):
        nothing = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
        return nothing, table["image"].cast(pa.binary()), ()
    paths = _blank_to_null(validation.parse_text(table, "image", file))
    stored = validation.to_mask(pc.starts_with(paths, image_store.URL_SCHEME))
    paths = pc.if_else(pa.array(stored), pc.utf8_slice_codeunits(paths, len(image_store.URL_SCHEME)), paths)
    url = validation.to_mask(pc.match_substring_regex(paths, r"^[A-Za-z][A-Za-z0-9+.-]*://"))
    escapes = validation.to_mask(pc.match_substring_regex(paths, r"(^|/)\.\.(/|$)"))
    folder = str((file if file.is_dir() else file.parent).resolve())
    inside = pc.binary_join_element_wise(folder, pc.replace_substring_regex(paths, r"^(\./+)+", ""), "/")
    absolute = pc.if_else(pc.starts_with(paths, "/"), paths, inside)
    absolute = pc.if_else(
        pa.array(stored), pc.binary_join_element_wise(image_store.PATH_PREFIX, absolute, ""), absolute
    )
    nothing = pa.chunked_array([pa.nulls(table.num_rows, pa.binary())])
    return (
        pc.if_else(pa.array(url | escapes), None, absolute),
        nothing,
        (Check("image", A_URL, url), Check("image", ESCAPES, escapes & ~url)),
    )


def _blank_to_null(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pa.array(validation.is_blank(text)), None, text)
