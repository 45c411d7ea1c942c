"""Ingests the day's products: writes new and changed ones as versions to the table `product_catalogue`.

Every row is compared, by hash, with the stored version of its product. Only new and changed products are written, and
only these are encoded later. The comparison reads the day's table once, and of the stored versions only ids,
timestamps and hashes.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import text
from feature_repo.arrow.text import NormalizedValues
from feature_repo.config import Settings
from feature_repo.errors import ConflictError, InvalidInputError
from feature_repo.location import BucketPath, Location
from feature_repo.offline import delta, input_files, quarantine, validation
from feature_repo.offline.csv_text import DELIMITERS
from feature_repo.offline.delta_blocks import append_blocks_if_version
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.offline.validation import RowCheck
from feature_repo.offline.versions import read_gone_products
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.catalogue import activity, image_hashes, prices, row_hash, stored_versions, validate
from producers.catalogue.decimal_mark import DecimalMark
from producers.catalogue.fingerprint import compute_fingerprints
from producers.catalogue.image_bytes import attach_image_bytes
from producers.catalogue.repeated_ids import DUPLICATE_ID, find_collisions, find_repeated
from producers.catalogue.row_hash import RowHashes
from producers.catalogue.stored_versions import StoredVersions
from producers.catalogue.summary import IngestSummary

STEP = "catalogue"
COLUMNS = (*schema.PRODUCTS.names, *schema.OPTIONAL_PRODUCTS.names)
"""Columns of a products table that are read."""
BLOCK_ROWS = 131_072
"""Rows of the day's table in memory at a time; fewer if they are wide, see `input_files.BLOCK_BYTES`. Of earlier blocks
only ids and hashes are kept, and of the rows to write all but the bytes of images."""


@dataclass
class _IngestProgress:
    """The blocks read so far. The first six fields have one entry for each block, in the order of the table."""

    product_ids: list[pa.ChunkedArray] = field(default_factory=list)
    """Ids of all rows of a block, refused ones included."""
    id_hashes: list[RowHashes] = field(default_factory=list)
    """Hashes of these ids."""
    updated_at_us: list[NDArray[np.int64]] = field(default_factory=list)
    """Microseconds since 1970 UTC; 0 where it is missing or cannot be read."""
    is_valid: list[NDArray[np.bool_]] = field(default_factory=list)
    """False for refused rows."""
    is_unchanged: list[NDArray[np.bool_]] = field(default_factory=list)
    """Whether a valid row equals the stored version that is valid at its time."""
    increment: list[pa.Table] = field(default_factory=list)
    """Valid rows that are new or changed, without `image_bytes`, and with their number in the whole table as `row`."""
    has_image_bytes: bool = False
    """Whether the column `image` holds bytes. Those of rows to write are read again when they are written."""
    misshapen: list[RejectedRow] = field(default_factory=list)
    """Lines of a CSV that do not fit its header."""
    refused: list[RejectedRow] = field(default_factory=list)
    """Refused rows of all blocks, without the rows of a repeated id."""
    spellings: dict[int, str] = field(default_factory=dict)
    """Row number in the whole table -> its product id as it came, for ids that were normalized."""
    normalized: list[NormalizedValues] = field(default_factory=list)
    """Counts of normalized values, block by block."""
    currencies: Counter[str] = field(default_factory=Counter)
    """Currency -> prices that had it beside the number."""
    given: Counter[str] = field(default_factory=Counter)
    """`price` and `image` -> values that are not null."""
    repairs: list[tuple[int, RejectedRow]] = field(default_factory=list)
    """Repaired values of all blocks, each with its row number in the whole table, from 0."""
    ignored: tuple[str, ...] = ()
    """Columns of the table that are not in COLUMNS."""
    rows: int = 0
    """Rows read so far."""


@dataclass(frozen=True)
class _ChosenRows:
    """The outcome for the n rows of the whole table."""

    product_ids: pa.ChunkedArray
    """[n]"""
    id_hashes: RowHashes
    """[n, 2], hashes of these ids."""
    is_used: NDArray[np.bool_]
    """[n], False for refused rows."""
    refused: list[RejectedRow]
    """All refused rows."""


def ingest_products(
    settings: Settings,
    file: Path,
    now: datetime,
    *,
    partial: bool = False,
    allow_shrink: bool = False,
    rehash: bool = False,
    dry_run: bool = False,
    decimal: DecimalMark | None = None,
    progress: Callable[[int], None] = lambda rows: None,
    table_format: TableFormat = DEFAULT_FORMAT,
) -> IngestSummary:
    """Write the new and changed products of a table to the catalogue, and refused rows to the quarantine.

    A version is the state of a product from its `updated_at` on. A row adds a version if it differs, in anything but
    the time, from the version that is valid at its `updated_at`. So ingesting a file again adds nothing, and neither
    does an older file that arrives late, if its versions are stored. An image differs if its path or its bytes do.
    If the file has several rows of one product, the newest is used (of equally new ones the last) and the others are
    refused. If it spells one product id in several ways, such as with and without a blank, all of them are refused.
    Products that are gone, or back, become rows of the table `product_active`.

    Args:
        settings: the deployment.
        file: Parquet or CSV with the columns of schema.PRODUCTS, and any of schema.OPTIONAL_PRODUCTS. `image` is a
            path, an image in an LMDB (see `images.image_store`) or the image's bytes. Relative paths start at the
            file's folder. A path with a part `..` counts as no image. A row whose image cannot be read is used too.
        now: the created timestamp, with a time zone; rows with a later `updated_at` are refused.
        partial: the table holds only a part of the active products, so a missing product is not gone.
        allow_shrink: accept that MIN_GONE active products or more, and more than MAX_GONE_SHARE of them, are gone.
        rehash: read every image, even if path, size and modification time are unchanged.
        dry_run: compare and count, but write nothing.
        decimal: the decimal mark of prices that are texts; None: the one on which all prices of the file that show one
            agree. If they do not, prices that depend on it become null.
        progress: called after each block of at most BLOCK_ROWS rows with the number of rows read so far. It begins
            again from the first block if another writer committed first.
        table_format: what the user says about the file.

    Returns:
        The counts, the refused rows and the repairs of this file.

    Raises:
        NotFoundError: the file does not exist.
        InvalidInputError: the file cannot be read, lacks a column, is empty, has a column of a wrong type or no valid
            row; or so many products are missing that it seems incomplete. No product is written then. If no row is
            valid, the refused rows are in the quarantine.
        ConflictError: other writers committed to the catalogue first `delta.ATTEMPTS` times.
    """
    for _ in range(delta.ATTEMPTS):
        try:
            return _ingest_once(
                settings,
                file,
                now,
                partial=partial,
                allow_shrink=allow_shrink,
                rehash=rehash,
                dry_run=dry_run,
                decimal=decimal,
                progress=progress,
                table_format=table_format,
            )
        except delta.CommitConflictError:  # another run committed meanwhile: compare with what it wrote
            continue
    raise ConflictError(
        f"table `{schema.CATALOGUE_TABLE}`: other writers committed first {delta.ATTEMPTS} times; run this again"
    )


def _ingest_once(
    settings: Settings,
    file: Path,
    now: datetime,
    *,
    partial: bool,
    allow_shrink: bool,
    rehash: bool,
    dry_run: bool,
    decimal: DecimalMark | None,
    progress: Callable[[int], None],
    table_format: TableFormat,
) -> IngestSummary:
    """Do what `ingest_products` does, once.

    Raises:
        CommitConflictError: another run has written to the catalogue since it was read here.
    """
    path, active_path = settings.table(schema.CATALOGUE_TABLE), settings.table(schema.ACTIVE_TABLE)
    txn_version, active_txn_version = delta.txn_version(path, STEP), delta.txn_version(active_path, STEP)
    stored = stored_versions.read_versions(path)
    blocks = _compare_file(
        settings, file, stored, now, rehash=rehash, decimal=decimal, progress=progress, table_format=table_format
    )
    rows = _choose_rows(blocks)
    repairs = [repair for row, repair in blocks.repairs if rows.is_used[row]]

    product = stored.find_products(rows.id_hashes)
    named = activity.find_named(stored, blocks.misshapen, table_format.delimiter or DELIMITERS)
    in_table = np.concatenate([product[~validation.is_blank(rows.product_ids)], named])
    gone_before = read_gone_products(active_path)
    gone, returned = activity.find_moves(stored, in_table, gone_before)
    active = len(stored.products) - len(gone_before)
    if partial:
        gone = gone[:0]
    elif not allow_shrink and rows.is_used.any():
        activity.check_shrinkage(file, len(gone), active)
    if not dry_run:
        quarantine.add(settings, STEP, [*rows.refused, *repairs], now)
    if not rows.is_used.any():
        reasons = ", ".join(f"{n:,} x {reason}" for reason, n in quarantine.count_by_reason(rows.refused).items())
        raise InvalidInputError(f"{file}: none of its {blocks.rows:,} rows is usable: {reasons}")

    if not dry_run:
        _write_increment(path, blocks, rows.is_used, file, now, txn_version, table_format)
        if len(gone) or len(returned):
            moves = activity.build_activity_rows(stored, gone, returned, now)
            delta.append_if_version(active_path, moves, STEP, active_txn_version)
    is_unchanged = np.concatenate(blocks.is_unchanged)
    return IngestSummary(
        read=blocks.rows + len(blocks.misshapen),
        new=int((rows.is_used & (product < 0)).sum()),
        changed=int((rows.is_used & (product >= 0) & ~is_unchanged).sum()),
        unchanged=int((rows.is_used & is_unchanged).sum()),
        gone=len(gone),
        active=active,
        returned=len(returned),
        refused=tuple(rows.refused),
        repairs=tuple(repairs),
        normalized=text.sum_normalized(blocks.normalized),
        currencies=dict(blocks.currencies.most_common()),
        given=dict(blocks.given),
        ignored=blocks.ignored,
    )


def _compare_file(
    settings: Settings,
    file: Path,
    stored: StoredVersions,
    now: datetime,
    *,
    rehash: bool,
    decimal: DecimalMark | None,
    progress: Callable[[int], None],
    table_format: TableFormat,
) -> _IngestProgress:
    """Validate the day's table block by block, and compare it with the stored versions."""
    blocks = _IngestProgress()
    tables, price_columns = _open_blocks(file, table_format, blocks.misshapen)
    for block in tables:
        if not blocks.rows:
            validation.require_columns(block, schema.PRODUCTS.names, file)
            blocks.ignored = tuple(name for name in block.column_names if name not in COLUMNS)
            decimal = decimal or prices.find_decimal_mark(price_columns)
        _compare_block(
            blocks,
            block,
            stored,
            file,
            now,
            rehash=rehash,
            decimal=decimal,
            timezone=table_format.timezone,
            pictures=settings.pictures,
        )
        progress(blocks.rows)
    return blocks


def _choose_rows(blocks: _IngestProgress) -> _ChosenRows:
    """Return which row of each product is used, and all refusals, those of repeated ids included."""
    is_valid, id_hashes = np.concatenate(blocks.is_valid), np.concatenate(blocks.id_hashes)
    product_ids = pa.chunked_array([chunk for column in blocks.product_ids for chunk in column.chunks])
    is_repeated = find_repeated(id_hashes, is_valid)
    colliding = find_collisions(product_ids, np.flatnonzero(is_repeated), blocks.spellings)
    for row in colliding:
        is_valid[row] = is_repeated[row] = False
    is_superseded = validation.is_superseded(product_ids, np.concatenate(blocks.updated_at_us), is_repeated)
    superseded = RowCheck(schema.PRODUCT_ID, DUPLICATE_ID, is_superseded)
    refused = [
        *blocks.misshapen,
        *blocks.refused,
        *colliding.values(),
        *validation.list_failures(pa.table({schema.PRODUCT_ID: product_ids}), product_ids, superseded),
    ]
    return _ChosenRows(product_ids, id_hashes, is_valid & ~is_superseded, refused)


def _write_increment(
    path: Location,
    blocks: _IngestProgress,
    is_used: NDArray[np.bool_],
    file: Path,
    now: datetime,
    txn_version: int,
    table_format: TableFormat,
) -> None:
    """Write the used rows that are new or changed, in one commit; nothing if there are none.

    Raises:
        CommitConflictError: another run has written to the catalogue since `txn_version`.
        InvalidInputError: the file was changed while it was read.
    """
    increment = pa.concat_tables(blocks.increment)
    increment = increment.filter(pa.array(is_used[increment["row"].to_numpy()]))
    if not len(increment):
        return
    created = pa.repeat(pa.scalar(now, schema.TIMESTAMP), len(increment))
    increment = increment.append_column(schema.CREATED_TIMESTAMP, created)
    if blocks.has_image_bytes:
        rows_with_bytes = attach_image_bytes(increment, file, BLOCK_ROWS, table_format)
        append_blocks_if_version(path, schema.CATALOGUE, rows_with_bytes, STEP, txn_version)
    else:
        rows = increment.append_column("image_bytes", pa.nulls(len(increment), pa.binary()))
        delta.append_if_version(path, rows.select(schema.CATALOGUE.names).cast(schema.CATALOGUE), STEP, txn_version)


def _open_blocks(
    file: Path, table_format: TableFormat, misshapen: list[RejectedRow]
) -> tuple[Iterable[pa.Table], Iterable[pa.ChunkedArray]]:
    """Return the blocks of a table and, to be read before them, their columns of prices.

    Rows of a CSV that do not fit its header are added to `misshapen`. The prices of Parquet are read twice, because
    the decimal mark is a matter of the whole column. A CSV is in memory anyway.
    """
    blocks = input_files.read_blocks(file, BLOCK_ROWS, COLUMNS, table_format=table_format, on_refused=misshapen.extend)
    if input_files.is_parquet(file):
        return blocks, input_files.read_column(file, "price", BLOCK_ROWS, table_format=table_format)
    tables = list(blocks)
    return tables, (table["price"] for table in tables)


def _compare_block(
    blocks: _IngestProgress,
    block: pa.Table,
    stored: StoredVersions,
    file: Path,
    now: datetime,
    *,
    rehash: bool,
    decimal: DecimalMark | None,
    timezone: str | None,
    pictures: BucketPath | None,
) -> None:
    """Validate a block, compare it with the stored versions and add the result to `blocks`."""
    validated = validate.validate_products(
        block, blocks.rows, file, now, decimal=decimal, timezone=timezone, pictures=pictures
    )
    id_hashes = row_hash.hash_texts(validated.product_ids)
    product = stored.find_products(id_hashes)
    newest, valid_version = stored.find_newest(product), stored.find_valid(product, validated.updated_at_us)
    stored_hashes = _take_or_zero(stored.image_hashes, newest)
    stored_stats = _take_or_zero(stored.image_stats, newest)
    image_hash, image_stat = image_hashes.hash_images(
        validated.rows, validated.is_valid, stored_hashes, stored_stats, rehash=rehash, pictures=pictures
    )
    fingerprints = compute_fingerprints(validated.rows, image_hash)
    is_same = (fingerprints == _take_or_zero(stored.fingerprints, valid_version)).all(axis=1)
    is_unchanged = validated.is_valid & (valid_version >= 0) & is_same
    blocks.has_image_bytes |= validated.rows["image_bytes"].null_count < len(block)
    rows = validated.rows.drop_columns("image_bytes")
    for name, column in {
        "image_hash": image_hash,
        "image_stat": image_stat,
        "fingerprint": row_hash.to_arrow(fingerprints),
        "row": pa.array(np.arange(blocks.rows, blocks.rows + len(block))),
    }.items():
        rows = rows.append_column(name, column)
    blocks.increment.append(rows.filter(pa.array(validated.is_valid & ~is_unchanged)))
    blocks.product_ids.append(validated.product_ids)
    blocks.id_hashes.append(id_hashes)
    blocks.updated_at_us.append(validated.updated_at_us)
    blocks.is_valid.append(validated.is_valid)
    blocks.is_unchanged.append(is_unchanged)
    blocks.refused += validated.refused
    blocks.repairs += [(blocks.rows + row, repair) for row, repair in validated.repairs]
    blocks.spellings |= {blocks.rows + row: spelling for row, spelling in validated.spellings.items()}
    blocks.normalized += validated.normalized
    blocks.currencies += validated.currencies
    blocks.given += validated.given
    blocks.rows += len(block)


def _take_or_zero(column: RowHashes, row_index: NDArray[np.int64]) -> RowHashes:
    """Return rows by index; zeros for -1."""
    if not len(column):
        return np.zeros((len(row_index), 2), np.uint64)
    return np.where((row_index >= 0)[:, None], column[row_index], np.uint64(0))
