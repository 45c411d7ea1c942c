"""Products checked and taken in: what a shop hands in becomes versions in the table `product_catalogue`.

Pictures are not opened here: a path is kept, made absolute, and the step that encodes it says what was wrong with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.errors import VitrineError
from feature_repo.settings import Settings
from feature_repo.tables import checks, delta, files, quarantine
from feature_repo.tables.checks import Check
from feature_repo.tables.quarantine import Refused
from producers import versions

TABLE = "product_catalogue"
STEP = "catalogue"
MAX_TITLE = 1_000
"""Code points of a title that are kept; encoders read fewer than a hundred."""

NO_ID = "product id is null or blank"
TWICE = "product id came again: its newest row was taken"
NOTHING = "neither a title nor a usable image path"
LONG_TITLE = f"title cut to {MAX_TITLE:,} characters, row kept"
BAD_PRICE = "price is no number from 0 on: set to null, row kept"
ESCAPES = "image path leads out of the table's folder by `..`: set to null, row kept"
A_URL = "image is a URL, no file: set to null, row kept"


@dataclass(frozen=True)
class TakenIn:
    """What came of one file; `new + changed + unchanged + len(refused)` is `read`."""

    read: int
    new: int
    """Products never seen before."""
    changed: int
    """Further versions of known products."""
    unchanged: int
    refused: tuple[Refused, ...]
    notes: tuple[Refused, ...]
    """Values that were repaired; their rows are among the taken."""
    ignored: tuple[str, ...]
    """Columns that a catalogue does not have."""

    def __str__(self) -> str:
        """One line, and one more for each reason."""
        lines = [
            f"read {self.read:,} products: {self.new:,} new, {self.changed:,} changed, {self.unchanged:,} unchanged, "
            f"{len(self.refused):,} refused"
        ]
        lines += [f"  refused {rows:,}: {reason}" for reason, rows in quarantine.counts(self.refused).items()]
        lines += [f"  mended {rows:,}: {reason}" for reason, rows in quarantine.counts(self.notes).items()]
        lines += [f"  ignored column {name}" for name in self.ignored]
        return "\n".join(lines)


def take_in(settings: Settings, file: Path, now: datetime) -> TakenIn:
    """Add what is new or changed in a products table to the catalogue; the bad rows go to the quarantine.

    A version is the state of a product from its `updated_at` on. A row adds one if it differs from the version that was
    valid at its `updated_at` in anything but that time, so a file taken in twice adds nothing, nor does an older file
    that comes late, where its versions are known.

    Args:
        settings: the deployment.
        file: Parquet or CSV with the columns of schema.PRODUCTS, `image` a path or the picture's bytes. Relative paths
            start at the file's folder and may not leave it by `..`; absolute paths are taken at their word.
        now: the created timestamp; later `updated_at` are refused.

    Raises:
        VitrineError: the file cannot be read, lacks a column, is empty, has a column of a wrong type, or no row of it
            is usable.
    """
    table = files.read(file, schema.PRODUCTS.names)
    checks.require(table, schema.PRODUCTS.names, file)
    arriving, refused, notes = _check(table, file, now)
    quarantine.add(settings, STEP, [*refused, *notes], now)
    if not arriving.num_rows:
        reasons = ", ".join(f"{rows:,} x {reason}" for reason, rows in quarantine.counts(refused).items())
        raise VitrineError(f"{file}: none of its {table.num_rows:,} rows is usable: {reasons}")
    path = settings.table(TABLE)
    is_known, is_unchanged = versions.compare(arriving, _known(path, arriving[schema.PRODUCT_ID]))
    if not is_unchanged.all():
        added = arriving.filter(pa.array(~is_unchanged))
        created = pa.repeat(pa.scalar(now, schema.TIMESTAMP), added.num_rows)
        delta.append(path, added.append_column(schema.CREATED_TIMESTAMP, created).cast(schema.CATALOGUE))
    return TakenIn(
        read=table.num_rows,
        new=int((~is_known).sum()),
        changed=int((is_known & ~is_unchanged).sum()),
        unchanged=int(is_unchanged.sum()),
        refused=tuple(refused),
        notes=tuple(notes),
        ignored=tuple(name for name in table.column_names if name not in schema.PRODUCTS.names),
    )


def _known(path: Path, products: pa.ChunkedArray) -> pa.Table:
    """The versions of some products that the catalogue has; those of the others, and their pictures, are not loaded."""
    if not delta.exists(path):
        return schema.CATALOGUE.empty_table()
    return delta.read(path, schema.CATALOGUE.names, where=pc.field(schema.PRODUCT_ID).isin(pc.unique(products)))


def _check(table: pa.Table, file: Path, now: datetime) -> tuple[pa.Table, list[Refused], list[Refused]]:
    """The usable rows in the columns of schema.CATALOGUE but `created_timestamp`; the refused; the repairs."""
    ids = checks.as_text(table, schema.PRODUCT_ID, file)
    names = checks.row_names(ids)
    instants, bad_instants = checks.as_timestamps(table, "updated_at", file, now)
    titles = _blank_to_null(checks.as_text(table, "title", file))
    prices = checks.as_numbers(table, "price", file)
    images, image_bytes, bad_images = _images(table, file)
    bad_price = checks.mask(pc.less(prices, 0.0)) | checks.mask(pc.invert(pc.is_finite(prices)))
    has_nothing = (
        checks.mask(pc.is_null(titles)) & checks.mask(pc.is_null(images)) & checks.mask(pc.is_null(image_bytes))
    )
    passed, refused = checks.sieve(
        table,
        names,
        [
            Check(schema.PRODUCT_ID, NO_ID, checks.blank(ids)),
            *bad_instants,
            Check("image", NOTHING, has_nothing),
        ],
    )
    twice = checks.displaced(ids, instants.cast(pa.int64()).fill_null(0).to_numpy(), passed)
    passed, doubled = checks.sieve(table, names, [Check(schema.PRODUCT_ID, TWICE, twice)], passed)
    repairs = [
        Check("title", LONG_TITLE, checks.mask(pc.greater(pc.utf8_length(titles), MAX_TITLE))),
        Check("price", BAD_PRICE, bad_price),
        *bad_images,
    ]
    notes = [
        note
        for repair in repairs
        for note in checks.named(table, names, Check(repair.column, repair.reason, repair.bad & passed))
    ]
    columns = {
        schema.PRODUCT_ID: ids,
        "title": pc.utf8_slice_codeunits(titles, 0, MAX_TITLE),
        "image": images,
        "image_bytes": image_bytes,
        "category": _blank_to_null(checks.as_text(table, "category", file)),
        "brand": _blank_to_null(checks.as_text(table, "brand", file)),
        "price": pc.if_else(pa.array(bad_price), None, prices),
        schema.EVENT_TIMESTAMP: instants,
    }
    return pa.table(columns).filter(pa.array(passed)), refused + doubled, notes


def _images(table: pa.Table, file: Path) -> tuple[pa.ChunkedArray, pa.ChunkedArray, Sequence[Check]]:
    """Absolute paths, bytes, and the paths that name no file of ours."""
    held = table["image"].type
    if pa.types.is_binary(held) or pa.types.is_large_binary(held):
        nothing = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
        return nothing, table["image"].cast(pa.binary()), ()
    paths = _blank_to_null(checks.as_text(table, "image", file))
    url = checks.mask(pc.match_substring_regex(paths, r"^[A-Za-z][A-Za-z0-9+.-]*://"))
    escapes = checks.mask(pc.match_substring_regex(paths, r"(^|/)\.\.(/|$)"))
    folder = str((file if file.is_dir() else file.parent).resolve())
    inside = pc.binary_join_element_wise(folder, pc.replace_substring_regex(paths, r"^(\./+)+", ""), "/")
    absolute = pc.if_else(pc.starts_with(paths, "/"), paths, inside)
    nothing = pa.chunked_array([pa.nulls(table.num_rows, pa.binary())])
    return (
        pc.if_else(pa.array(url | escapes), None, absolute),
        nothing,
        (Check("image", A_URL, url), Check("image", ESCAPES, escapes & ~url)),
    )


def _blank_to_null(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pa.array(checks.blank(text)), None, text)
