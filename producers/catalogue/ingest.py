"""The day's active products to an increment: what a shop hands in becomes versions in the table `product_catalogue`.

Every row is compared, by digest, with the version of its product that is known; what is written, and what is then to
be encoded, is new or changed. The comparison reads the day's table once and, of what is known, ids, times and digests.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, input_files, quarantine, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.offline.validation import Check
from feature_repo.offline.versions import read_gone_products
from producers.catalogue import image_hashes, row_hash, validate, versions
from producers.catalogue.row_hash import Digests
from producers.catalogue.versions import Known

STEP = "catalogue"
BLOCK_ROWS = 131_072
"""Rows of the day's table in memory at a time; of those before, ids, times and digests are kept, and the increment."""
TWICE = "product id came again: its newest row was taken"
SHRUNK_SHARE = 0.5
"""A larger share of the active products than this is not believed to be gone at once ..."""
SHRUNK_FROM = 100
"""... unless there are fewer of them than this."""


@dataclass(frozen=True)
class TakenIn:
    """What came of one file; `new + changed + unchanged + len(refused)` is `read`."""

    read: int
    new: int
    """Products never seen before."""
    changed: int
    """Further versions of known products."""
    unchanged: int
    gone: int
    """Products that were active and are not in the table."""
    returned: int
    """Products that had gone and are in it again; each is also new, changed or unchanged."""
    refused: tuple[RejectedRow, ...]
    notes: tuple[RejectedRow, ...]
    """Values that were repaired; their rows are among the taken."""
    ignored: tuple[str, ...]
    """Columns that a catalogue does not have."""

    def __str__(self) -> str:
        """One line, and one more for each reason."""
        lines = [
            f"read {self.read:,} products: {self.new:,} new, {self.changed:,} changed, {self.unchanged:,} unchanged, "
            f"{len(self.refused):,} refused"
        ]
        lines += [f"  gone {self.gone:,}: active before, and not in this table"] * bool(self.gone)
        lines += [f"  returned {self.returned:,}: gone before, and in this table again"] * bool(self.returned)
        lines += [f"  refused {rows:,}: {reason}" for reason, rows in quarantine.count_by_reason(self.refused).items()]
        lines += [f"  mended {rows:,}: {reason}" for reason, rows in quarantine.count_by_reason(self.notes).items()]
        lines += [f"  ignored column {name}" for name in self.ignored]
        return "\n".join(lines)


@dataclass
class _Read:
    """What was read so far, [rows] in the order of the table."""

    ids: list[pa.ChunkedArray] = field(default_factory=list)
    keys: list[Digests] = field(default_factory=list)
    instants: list[NDArray[np.int64]] = field(default_factory=list)
    passed: list[NDArray[np.bool_]] = field(default_factory=list)
    unchanged: list[NDArray[np.bool_]] = field(default_factory=list)
    increment: list[pa.Table] = field(default_factory=list)
    """Versions that are not known, with their `row`."""
    refused: list[RejectedRow] = field(default_factory=list)
    notes: list[tuple[int, RejectedRow]] = field(default_factory=list)
    ignored: tuple[str, ...] = ()
    rows: int = 0


def take_in(
    settings: Settings,
    file: Path,
    now: datetime,
    *,
    partial: bool = False,
    allow_shrink: bool = False,
    rehash: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> TakenIn:
    """Add what is new or changed in a products table to the catalogue; the bad rows go to the quarantine.

    A version is the state of a product from its `updated_at` on. A row adds one if it differs from the version that was
    valid at its `updated_at` in anything but that time, so a file taken in twice adds nothing, nor does an older file
    that comes late, where its versions are known. A picture differs where its place or its bytes do.

    Args:
        settings: the deployment.
        file: Parquet or CSV with the columns of schema.PRODUCTS, `image` a path, a picture in an LMDB
            (feature_repo.image_store) or the picture's bytes. Relative paths start at the file's folder and may not
            leave it by `..`; absolute paths are taken at their word.
        now: the created timestamp; later `updated_at` are refused.
        partial: the table is not all that is active: nothing is gone for not being in it.
        allow_shrink: believe that more than SHRUNK_SHARE of the active products are gone.
        rehash: read every picture anew, also where path, size and time of change are as they were.
        progress: told the rows read so far.

    Raises:
        VitrineError: the file cannot be read, lacks a column, is empty, has a column of a wrong type, or no row of it
            is usable; so many products would be gone that it is taken for a part; others write the catalogue all the
            time.
    """
    for _ in range(delta.ATTEMPTS):
        try:
            return _take_in(
                settings, file, now, partial=partial, allow_shrink=allow_shrink, rehash=rehash, progress=progress
            )
        except delta.CommitConflict:  # another run has taken in a table meanwhile: compare with that
            continue
    raise VitrineError(f"table `{schema.CATALOGUE_TABLE}`: others were quicker {delta.ATTEMPTS} times; run this again")


def _take_in(
    settings: Settings,
    file: Path,
    now: datetime,
    *,
    partial: bool,
    allow_shrink: bool,
    rehash: bool,
    progress: Callable[[int], None],
) -> TakenIn:
    path, active_path = settings.table(schema.CATALOGUE_TABLE), settings.table(schema.ACTIVE_TABLE)
    turn, active_turn = delta.txn_version(path, STEP), delta.txn_version(active_path, STEP)
    known = versions.read(path)
    read = _Read()
    for block in input_files.read_blocks(file, BLOCK_ROWS, schema.PRODUCTS.names):
        if not read.rows:
            validation.require_columns(block, schema.PRODUCTS.names, file)
            read.ignored = tuple(name for name in block.column_names if name not in schema.PRODUCTS.names)
        _add(read, block, known, file, now, rehash=rehash)
        progress(read.rows)
    passed, unchanged = np.concatenate(read.passed), np.concatenate(read.unchanged)
    keys, ids = np.concatenate(read.keys), pa.chunked_array([chunk for each in read.ids for chunk in each.chunks])
    twice = _displaced(ids, keys, np.concatenate(read.instants), passed)
    doubled = validation.list_failures(pa.table({schema.PRODUCT_ID: ids}), ids, Check(schema.PRODUCT_ID, TWICE, twice))
    refused = read.refused + doubled
    notes = [note for row, note in read.notes if not twice[row]]

    product = known.find(keys)
    gone_before = read_gone_products(active_path)
    gone, returned = _moved(known, product[~validation.is_blank(ids)], gone_before)
    if partial:
        gone = gone[:0]
    elif not allow_shrink and passed.any():
        _refuse_shrinking(file, len(gone), len(known.products) - len(gone_before))
    quarantine.add(settings, STEP, [*refused, *notes], now)
    if not passed.any():
        reasons = ", ".join(f"{rows:,} x {reason}" for reason, rows in quarantine.count_by_reason(refused).items())
        raise VitrineError(f"{file}: none of its {read.rows:,} rows is usable: {reasons}")

    taken = passed & ~twice
    increment = pa.concat_tables(read.increment)
    increment = increment.filter(pa.array(taken[increment["row"].to_numpy()]))
    if len(increment):
        created = pa.repeat(pa.scalar(now, schema.TIMESTAMP), len(increment))
        rows = increment.append_column(schema.CREATED_TIMESTAMP, created).select(schema.CATALOGUE.names)
        delta.append_if_version(path, rows.cast(schema.CATALOGUE), STEP, turn)
    if len(gone) or len(returned):
        delta.append_if_version(active_path, _moves(known, gone, returned, now), STEP, active_turn)
    return TakenIn(
        read=read.rows,
        new=int((taken & (product < 0)).sum()),
        changed=int((taken & (product >= 0) & ~unchanged).sum()),
        unchanged=int((taken & unchanged).sum()),
        gone=len(gone),
        returned=len(returned),
        refused=tuple(refused),
        notes=tuple(notes),
        ignored=read.ignored,
    )


def _add(read: _Read, block: pa.Table, known: Known, file: Path, now: datetime, *, rehash: bool) -> None:
    """Check a block and compare it with what is known."""
    came = validate.check(block, read.rows, file, now)
    keys = row_hash.of_texts(came.ids)
    product = known.find(keys)
    newest, valid = known.newest(product), known.valid(product, came.instants)
    before, stat_before = (_rows(column, newest) for column in (known.image_hash, known.image_stat))
    image_hash, image_stat = image_hashes.of_block(came.versions, came.passed, before, stat_before, rehash=rehash)
    prints = fingerprint(came.versions, image_hash)
    unchanged = came.passed & (valid >= 0) & (prints == _rows(known.fingerprint, valid)).all(axis=1)
    extended = came.versions
    for name, column in {
        "image_hash": image_hash,
        "image_stat": image_stat,
        "fingerprint": row_hash.to_arrow(prints),
        "row": pa.array(np.arange(read.rows, read.rows + len(block))),
    }.items():
        extended = extended.append_column(name, column)
    read.increment.append(extended.filter(pa.array(came.passed & ~unchanged)))
    read.ids.append(came.ids)
    read.keys.append(keys)
    read.instants.append(came.instants)
    read.passed.append(came.passed)
    read.unchanged.append(unchanged)
    read.refused += came.refused
    read.notes += [(read.rows + row, note) for row, note in came.notes]
    read.rows += len(block)


def fingerprint(rows: pa.Table, image_hash: pa.Array) -> Digests:
    """[rows, 2] of all that makes a version: where it is equal, a later time alone does not."""
    # Few categories and brands, often repeated: each distinct one is digested once.
    repeated = [_of_repeated(rows[name]) for name in ("category", "brand")]
    price = rows["price"].fill_null(np.nan).to_numpy().astype(np.float64)
    price = np.where(np.isnan(price), np.nan, price + 0.0)  # one NaN for null, one zero
    columns = [row_hash.of_texts(rows[name]) for name in ("title", "image")]
    picture = row_hash.of_texts(pa.chunked_array([image_hash]))
    return row_hash.of_rows([*columns, picture, *repeated, row_hash.of_numbers(price.view(np.int64))])


def _of_repeated(column: pa.ChunkedArray) -> Digests:
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    made = row_hash.of_texts(pa.chunked_array([encoded.dictionary]))
    return made[encoded.indices.to_numpy()]


def _rows(column: Digests, at: NDArray[np.int64]) -> Digests:
    """Rows by number, zeros at -1."""
    if not len(column):
        return np.zeros((len(at), 2), np.uint64)
    return np.where((at >= 0)[:, None], column[at], np.uint64(0))


def _displaced(
    ids: pa.ChunkedArray, keys: Digests, instants: NDArray[np.int64], passed: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """[rows] whether a newer row of the same product, or an equally new one that comes later, passed as well."""
    rows = np.flatnonzero(passed)
    order = row_hash.order_of(keys[rows])
    by_key = keys[rows[order]]
    again = (by_key[1:] == by_key[:-1]).all(axis=1)
    several = np.zeros(len(passed), bool)
    several[rows[order[1:][again]]] = several[rows[order[:-1][again]]] = True
    if not several.any():
        return several
    return validation.is_superseded(ids, instants, several)


def _moved(
    known: Known, present: NDArray[np.int64], gone_before: pa.ChunkedArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The known products that are gone since, and those that have returned."""
    here, active = np.zeros(len(known.products), bool), np.ones(len(known.products), bool)
    here[present[present >= 0]] = True
    before = known.find(row_hash.of_texts(gone_before))
    active[before[before >= 0]] = False
    return np.flatnonzero(active & ~here), np.flatnonzero(~active & here)


def _refuse_shrinking(file: Path, gone: int, active: int) -> None:
    if active >= SHRUNK_FROM and gone > SHRUNK_SHARE * active:
        raise VitrineError(
            f"{file}: {gone:,} of {active:,} active products are not in it; if it is a part of the catalogue say "
            "--partial, if they are gone say --allow-shrink; nothing was taken in"
        )


def _moves(known: Known, gone: NDArray[np.int64], returned: NDArray[np.int64], now: datetime) -> pa.Table:
    """schema.PRODUCT_ACTIVE"""
    products = np.concatenate([gone, returned])
    moment = pa.repeat(pa.scalar(now, schema.TIMESTAMP), len(products))
    columns = [known.names(products), pa.array(np.repeat([False, True], [len(gone), len(returned)])), moment, moment]
    return pa.table(columns, schema=schema.PRODUCT_ACTIVE)
