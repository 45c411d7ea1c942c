"""Decode packed rows (see row_format.py) as columns: which rows can be decoded, and the status of each.

Rows are joined to one matrix of bytes, so that their checksums are one multiply-add; row_matrix.py reads its fields.
Nearly always all rows exist, or all but some, and are intact, fresh and of one layout: `_check_together` verifies that
in one step. Only otherwise are the rows sorted into those that can be decoded together and the rest (`_check_each`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.online.encode import Dictionaries, group_by_size
from feature_repo.online.row_format import FINGERPRINT, HEADER_SIZE, WORD_SIZE, Layout, verify_all, verify_each
from feature_repo.online.row_matrix import RowMatrix, read_event_timestamps, read_null_bits

_Part = tuple[NDArray[np.int64], RowMatrix]
"""Row indexes [m], and the matrix of these rows."""


class Status(IntEnum):
    """The result of reading one row. A higher number is worse."""

    PRESENT = 0
    """The row exists, is intact, and is not older than its view's TTL."""
    STALE = 1
    """The row exists, but is older than its view's TTL."""
    ABSENT = 2
    """The store has no row for the entity, or one that was written before any of the requested features existed."""
    FAILED = 3
    """The row is damaged, or its layout or one of its codes is unknown to the reader."""


@dataclass(frozen=True, repr=False)
class DecodedRows:
    """Features and status of n entities in one view, in the order of the request."""

    columns: dict[str, Column]
    """A column of n values for each requested feature, by name in the order of the request. Values of rows that are not
    PRESENT are missing, except that stale rows keep theirs if the caller asked for it."""
    status: NDArray[np.uint8]
    """uint8 [n], values of `Status`."""
    event_timestamp_us: NDArray[np.int64]
    """int64 [n], event timestamps in microseconds since 1970 UTC; 0 for an absent or failed row."""
    is_catalog_outdated: bool = False
    """Whether an intact row failed: its layout or a code was added to the store after the reader read the catalog."""
    unwritten: Mapping[str, NDArray[np.bool_]] = dataclasses.field(default_factory=dict)
    """For features that some rows were written without, by name: bool [n], whether the row's layout lacks the feature.
    A feature that was added to the view, or got another type, is absent from older rows until they are written again.
    """

    def feature_status(self, name: str) -> NDArray[np.uint8]:
        """Return the `Status` of each row for one feature, uint8 [n]: ABSENT where the row was written without it.

        Args:
            name: one of `columns`; its status is otherwise that of the row.
        """
        unwritten = self.unwritten.get(name)
        return self.status if unwritten is None else np.where(unwritten, np.uint8(Status.ABSENT), self.status)

    def __repr__(self) -> str:
        return f"DecodedRows({count_statuses(self.status)}; {', '.join(self.columns)})"

    def slice_rows(self, fields: Sequence[Field], rows: slice) -> "DecodedRows":
        """Return some fields of a range of rows; arrays are views of the same memory.

        Args:
            fields: the fields to keep, in this order; a KeyError if one is not among `columns`.
            rows: the range, a slice of 0 to n. `is_catalog_outdated` is kept as it is, for all rows.
        """
        sliced = {field.name: columns.slice_rows(self.columns[field.name], rows) for field in fields}
        unwritten = {name: mask[rows] for name, mask in self.unwritten.items() if name in sliced}
        status, timestamps = _mark_absent(fields, unwritten, self.status[rows], self.event_timestamp_us[rows])
        return DecodedRows(sliced, status, timestamps, self.is_catalog_outdated, unwritten)


def count_statuses(status: NDArray[np.uint8]) -> str:
    """Return how many rows have each status, as "3 rows: 2 present, 1 absent"."""
    counts = np.bincount(status, minlength=len(Status)).tolist()
    named = [f"{count:,} {Status(number).name.lower()}" for number, count in enumerate(counts) if count]
    return f"{len(status):,} row{'' if len(status) == 1 else 's'}{': ' if named else ''}{', '.join(named)}"


def decode_rows(
    rows: Sequence[bytes | None],
    layouts: Mapping[int, Layout],
    fields: Sequence[Field],
    dictionaries: Dictionaries,
    *,
    oldest_us: int | None = None,
    keep_stale: bool = False,
    out: Mapping[str, NDArray[Any]] | None = None,
) -> DecodedRows:
    """Return the features of n entities as columns, in the order of the rows. No rows give columns of 0 values.

    A damaged row, or one that the layouts or dictionaries cannot explain, raises nothing: its status is FAILED.

    Args:
        rows: packed rows; None where the store has none. Repeats are allowed.
        layouts: the layouts that rows may have, by fingerprint.
        fields: the fields to decode, as the reader knows them. A row whose layout has no field of that name and type
            has a missing value.
        dictionaries: the texts of each feature with storage "dictionary"; a KeyError if one that is decoded has none.
        oldest_us: microseconds since 1970 UTC; a row whose event timestamp is earlier is stale, at this time it is not.
            None: no row is stale.
        keep_stale: decode the values of stale rows, which are missing otherwise.
        out: for some features that are floats or vectors of floats, an array [n] or [n, width] that receives the
            values; NaN where missing.

    Raises:
        InvalidInputError: an array of `out` has another shape or dtype than its feature.
    """
    out = out or {}
    matrix = _check_together(rows, layouts, dictionaries, oldest_us)
    if matrix is not None:
        decoded = {field.name: matrix.read_column(field, dictionaries, out.get(field.name)) for field in fields}
        status = np.zeros(len(rows), np.uint8)  # Status.PRESENT
        event_timestamp_us = matrix.event_timestamps_us
        is_outdated = False
        parts = [(np.arange(len(rows)), matrix)]
    else:
        parts, status, event_timestamp_us, is_outdated = _check_each(
            rows, layouts, fields, dictionaries, oldest_us, keep_stale
        )
        decoded = {field.name: _merge_parts(parts, field, dictionaries, len(rows)) for field in fields}
    for name in decoded.keys() & out.keys():
        decoded[name] = columns.copy_into(decoded[name], out[name])
    unwritten = _find_unwritten(parts, fields, len(rows))
    status, event_timestamp_us = _mark_absent(fields, unwritten, status, event_timestamp_us)
    return DecodedRows(decoded, status, event_timestamp_us, is_outdated, unwritten)


def _find_unwritten(parts: Sequence[_Part], fields: Sequence[Field], count: int) -> dict[str, NDArray[np.bool_]]:
    """Return `DecodedRows.unwritten` of rows whose values are decoded; empty if all have every field."""
    unwritten: dict[str, NDArray[np.bool_]] = {}
    for row_indexes, matrix in parts:
        for field in fields:
            if not matrix.layout.has(field):
                unwritten.setdefault(field.name, np.zeros(count, np.bool_))[row_indexes] = True
    return unwritten


def _mark_absent(
    fields: Sequence[Field],
    unwritten: Mapping[str, NDArray[np.bool_]],
    status: NDArray[np.uint8],
    event_timestamp_us: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return status and event timestamps, ABSENT and 0 for rows that were written without any of the fields."""
    if not fields or len(unwritten) < len(fields):
        return status, event_timestamp_us
    is_absent = np.logical_and.reduce([unwritten[field.name] for field in fields])
    return np.where(is_absent, np.uint8(Status.ABSENT), status), np.where(is_absent, 0, event_timestamp_us)


def _check_together(
    rows: Sequence[bytes | None], layouts: Mapping[int, Layout], dictionaries: Dictionaries, oldest_us: int | None
) -> RowMatrix | None:
    """Return all rows as one matrix; None if one is absent, stale, damaged, of another layout or far larger."""
    if not len(rows) or rows[0] is None:
        return None
    present = cast(Sequence[bytes], rows)
    layout = layouts.get(int.from_bytes(present[0][FINGERPRINT], "little"))
    if layout is None:
        return None
    sizes: int | NDArray[np.int64]
    try:
        size, joined = len(present[0]), b"".join(present)
    except TypeError:  # a later row is None
        return None
    if len(joined) == size * len(rows):
        # Rows of several sizes may have this sum too. They are then cut at the wrong places and their checksums fail.
        if size < layout.prefix_size or size % WORD_SIZE:
            return None
        matrix, sizes = np.frombuffer(joined, np.uint8).reshape(len(rows), size), size
    else:
        sizes = np.fromiter(map(len, present), np.int64, len(present))
        if sizes.min() < layout.prefix_size or (sizes % WORD_SIZE).any() or len(group_by_size(sizes)) > 1:
            return None
        matrix = _build_matrix(present, sizes)
    if matrix[:, FINGERPRINT].tobytes() != present[0][FINGERPRINT] * len(rows):
        return None
    if not verify_all(matrix, sizes, layout.fingerprint):
        return None
    checked = RowMatrix(present, matrix, layout)
    if oldest_us is not None and checked.event_timestamps_us.min() < oldest_us:
        return None
    return checked if _has_all_codes(checked, dictionaries) else None


def _has_all_codes(matrix: RowMatrix, dictionaries: Dictionaries) -> bool:
    """Return whether the dictionaries have all codes, also of fields that are not requested; a null has code 0."""
    largest = matrix.codes.max(axis=1).tolist()
    return all(
        code < len(dictionaries.get(field.name, ()))
        for code, field in zip(largest, matrix.layout.code_fields, strict=True)
    )


def _check_each(
    rows: Sequence[bytes | None],
    layouts: Mapping[int, Layout],
    fields: Sequence[Field],
    dictionaries: Dictionaries,
    oldest_us: int | None,
    keep_stale: bool,
) -> tuple[list[_Part], NDArray[np.uint8], NDArray[np.int64], bool]:
    """Return the rows to decode, and `status`, `event_timestamp_us` and `is_catalog_outdated` of `DecodedRows`."""
    status = np.full(len(rows), Status.ABSENT, np.uint8)
    event_timestamp_us = np.zeros(len(rows), np.int64)
    is_unknown = np.zeros(len(rows), np.bool_)
    parts: list[_Part] = []
    present_indexes = np.flatnonzero([row is not None for row in rows])
    present = [row for row in rows if row is not None]
    checked = _check_together(present, layouts, dictionaries, oldest_us) if len(present) < len(rows) else None
    if checked is not None:  # the other rows are absent, and nothing else is wrong
        status[present_indexes], event_timestamp_us[present_indexes] = Status.PRESENT, checked.event_timestamps_us
        return [(present_indexes, checked)], status, event_timestamp_us, False
    status[present_indexes] = Status.FAILED
    sizes = np.fromiter(map(len, present), np.int64, len(present))
    for group in group_by_size(sizes) if present else ():
        group_rows = [present[i] for i in group.tolist()]
        row_indexes = present_indexes[group]
        matrix = _build_matrix(group_rows, sizes[group])
        is_intact = verify_each(matrix, sizes[group]) & (sizes[group] % WORD_SIZE == 0) & (sizes[group] >= HEADER_SIZE)
        fingerprints = matrix[:, FINGERPRINT].view("<u4")[:, 0]
        for fingerprint in np.unique(fingerprints):
            layout = layouts.get(int(fingerprint))
            selected = is_intact & (fingerprints == fingerprint)
            is_unknown[row_indexes[selected]] = True
            if layout is None:
                continue
            selected &= sizes[group] >= layout.prefix_size
            if not selected.any():
                continue
            for field, codes in zip(layout.code_fields, RowMatrix(group_rows, matrix, layout).codes, strict=True):
                if any(one.name == field.name for one in fields):
                    null = read_null_bits(matrix, layout.bit_indexes[field.name])
                    selected &= (codes < len(dictionaries[field.name])) | null
            is_unknown[row_indexes[selected]] = False
            timestamps = read_event_timestamps(matrix)
            is_stale = np.zeros(len(group), np.bool_) if oldest_us is None else timestamps < oldest_us
            event_timestamp_us[row_indexes[selected]] = timestamps[selected]
            status[row_indexes[selected]] = np.where(is_stale[selected], Status.STALE, Status.PRESENT)
            chosen = np.flatnonzero(selected if keep_stale else selected & ~is_stale)
            if len(chosen):
                chosen_rows = [group_rows[i] for i in chosen.tolist()]
                parts.append((row_indexes[chosen], RowMatrix(chosen_rows, matrix[chosen], layout)))
    return parts, status, event_timestamp_us, bool(is_unknown.any())


def _merge_parts(parts: Sequence[_Part], field: Field, dictionaries: Dictionaries, count: int) -> Column:
    """Return the field of all rows; missing for rows that are in no part."""
    if not parts:
        return columns.make_missing(field, count)
    merged = [(row_indexes, matrix.read_column(field, dictionaries)) for row_indexes, matrix in parts]
    return columns.merge(field, merged, count)


def _build_matrix(rows: Sequence[bytes], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return rows as a matrix [m, width] with zeros after the end of each; width is a multiple of a word."""
    width = max(int(sizes.max()), HEADER_SIZE)
    width += -width % WORD_SIZE
    return np.array(rows, f"S{width}").view(np.uint8).reshape(len(rows), width)
