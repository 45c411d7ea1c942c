"""Packed rows (layout.py draws them) to columns: which rows can be read together, and what became of the others.

Rows are joined to one matrix of bytes: their checksums are one multiply-add, and batch.py takes fields out of it.

Nearly always all rows are there, or all but some, sound and of one layout: that is seen at one go (`_all_alike`). Only
where it is not so are the rows sorted into those that can be read together and those that cannot (`_fit_to_read`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.online.checksum import WORD, verify_all, verify_each
from feature_repo.online.encode import Dictionaries, group_by_size
from feature_repo.online.row_format import HEADER_SIZE, Layout
from feature_repo.online.row_matrix import RowMatrix, read_event_timestamps, read_null_bits

FINGERPRINT = slice(16, 20)

_Part = tuple[NDArray[np.int64], RowMatrix]
"""[m], where the rows of a batch stand among those asked for, and the batch."""


class Status(IntEnum):
    """What became of a row that was asked for."""

    PRESENT = 0
    STALE = 1
    """It is there, but older than its view's TTL."""
    ABSENT = 2
    FAILED = 3
    """It is damaged, or of a layout or with a code that its reader does not know."""


@dataclass(frozen=True)
class DecodedRows:
    """What was read of n entities in one view."""

    columns: dict[str, Column]
    status: NDArray[np.uint8]
    """[n], of Status."""
    event_timestamp_us: NDArray[np.int64]
    """[n], microseconds since 1970 UTC; 0 for an absent or failed row."""
    is_catalog_outdated: bool = False
    """Whether a row failed though it is sound: its layout or a code came to the store after the reader had looked."""

    def slice_rows(self, fields: Sequence[Field], rows: slice) -> "DecodedRows":
        """Some fields of a range of the rows; not copied."""
        found = {field.name: columns.cut(self.columns[field.name], rows) for field in fields}
        return DecodedRows(found, self.status[rows], self.event_timestamp_us[rows], self.is_catalog_outdated)


def decode_rows(
    rows: Sequence[bytes | None],
    layouts: Mapping[int, Layout],
    wanted: Sequence[Field],
    words: Dictionaries,
    *,
    oldest: int | None = None,
    keep_stale: bool = False,
    out: Mapping[str, NDArray[Any]] | None = None,
) -> DecodedRows:
    """Columns from the packed rows of n entities, in their order.

    Args:
        rows: None where the store has none.
        layouts: by fingerprint, those that rows may be of.
        wanted: the fields to give back, as the reader knows them; null in rows whose layout has none of that type.
        words: dictionaries of the features with storage "dictionary".
        oldest: event timestamp in microseconds since 1970 UTC; a row before it is stale.
        keep_stale: give the values of stale rows, which are missing otherwise.
        out: for features that are floats or vectors of floats, the array [n] or [n, width] that takes the values.

    Raises:
        VitrineError: an array of `out` has another shape or dtype than its feature.
    """
    out = out or {}
    alike = _all_alike(rows, layouts, words, oldest)
    if alike is not None:
        found = {field.name: alike.column(field, words, out.get(field.name)) for field in wanted}
        status = np.zeros(len(rows), np.uint8)  # Status.PRESENT
        event = alike.times
        unknown = False
    else:
        parts, status, event, unknown = _fit_to_read(rows, layouts, wanted, words, oldest, keep_stale)
        found = {field.name: _merged(parts, field, words, len(rows)) for field in wanted}
    for name in found.keys() & out.keys():
        found[name] = columns.into(found[name], out[name])
    return DecodedRows(found, status, event, unknown)


def _all_alike(
    rows: Sequence[bytes | None], layouts: Mapping[int, Layout], words: Dictionaries, oldest: int | None
) -> RowMatrix | None:
    """All rows as one batch; None if one is absent, stale, damaged, of another layout or of a far other size."""
    if not len(rows) or rows[0] is None:
        return None
    present = cast(Sequence[bytes], rows)
    layout = layouts.get(int.from_bytes(present[0][FINGERPRINT], "little"))
    if layout is None:
        return None
    sizes: int | NDArray[np.int64]
    try:
        size, joined = len(present[0]), b"".join(present)
    except TypeError:  # one is None
        return None
    if len(joined) == size * len(rows):
        # Rows of several sizes may sum up to this too: cut at the wrong places, their checksums do not fit.
        if size < layout.prefix_size or size % WORD:
            return None
        matrix, sizes = np.frombuffer(joined, np.uint8).reshape(len(rows), size), size
    else:
        sizes = np.fromiter(map(len, present), np.int64, len(present))
        if sizes.min() < layout.prefix_size or (sizes % WORD).any() or len(group_by_size(sizes)) > 1:
            return None
        matrix = _matrix(present, sizes)
    if matrix[:, FINGERPRINT].tobytes() != present[0][FINGERPRINT] * len(rows):
        return None
    if not verify_all(matrix, sizes, layout.fingerprint):
        return None
    batch = RowMatrix(present, matrix, layout)
    if (oldest is not None and batch.times.min() < oldest) or not _has_all_words(batch, words):
        return None
    return batch


def _has_all_words(batch: RowMatrix, words: Dictionaries) -> bool:
    """Whether the dictionaries have the words of all codes, wanted or not; the code of null is zero."""
    largest = batch.codes.max(axis=1).tolist()
    return all(code < len(words.get(field.name, ())) for code, field in zip(largest, batch.layout.codes, strict=True))


def _fit_to_read(
    rows: Sequence[bytes | None],
    layouts: Mapping[int, Layout],
    wanted: Sequence[Field],
    words: Dictionaries,
    oldest: int | None,
    keep_stale: bool,
) -> tuple[list[_Part], NDArray[np.uint8], NDArray[np.int64], bool]:
    """The rows whose values are asked for, and `status`, `event_timestamp` and `unknown` of `Rows`."""
    status = np.full(len(rows), Status.ABSENT, np.uint8)
    event = np.zeros(len(rows), np.int64)
    unknown = np.zeros(len(rows), np.bool_)
    parts: list[_Part] = []
    place = np.flatnonzero([row is not None for row in rows])
    present = [row for row in rows if row is not None]
    alike = _all_alike(present, layouts, words, oldest) if len(present) < len(rows) else None
    if alike is not None:  # some are absent, and that is all
        status[place], event[place] = Status.PRESENT, alike.times
        return [(place, alike)], status, event, False
    status[place] = Status.FAILED
    sizes = np.fromiter(map(len, present), np.int64, len(present))
    for group in group_by_size(sizes) if present else ():
        chosen = [present[i] for i in group.tolist()]
        matrix = _matrix(chosen, sizes[group])
        whole = verify_each(matrix, sizes[group]) & (sizes[group] % WORD == 0) & (sizes[group] >= HEADER_SIZE)
        fingerprints = matrix[:, FINGERPRINT].view("<u4")[:, 0]
        for fingerprint in np.unique(fingerprints):
            layout = layouts.get(int(fingerprint))
            own = whole & (fingerprints == fingerprint)
            unknown[place[group[own]]] = True
            if layout is None:
                continue
            own &= sizes[group] >= layout.prefix_size
            if not own.any():
                continue
            batch = RowMatrix(chosen, matrix, layout)
            for field, codes in zip(layout.codes, batch.codes, strict=True):
                if any(one.name == field.name for one in wanted):
                    own &= (codes < len(words[field.name])) | read_null_bits(matrix, layout.position[field.name])
            unknown[place[group[own]]] = False
            moments = read_event_timestamps(matrix)
            stale = np.zeros(len(group), np.bool_) if oldest is None else moments < oldest
            event[place[group[own]]] = moments[own]
            status[place[group[own]]] = np.where(stale[own], Status.STALE, Status.PRESENT)
            read = np.flatnonzero(own if keep_stale else own & ~stale)
            if len(read):
                parts.append((place[group[read]], RowMatrix([chosen[i] for i in read.tolist()], matrix[read], layout)))
    return parts, status, event, bool(unknown.any())


def _merged(parts: Sequence[_Part], wanted: Field, words: Dictionaries, count: int) -> Column:
    """The field `wanted` of all rows, missing where they are in no part."""
    if not parts:
        return columns.empty(wanted, count)
    return columns.merge(wanted, [(place, batch.column(wanted, words)) for place, batch in parts], count)


def _matrix(rows: Sequence[bytes], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Rows as a matrix [m, width], zeros after the end of each; width is a multiple of a word, and holds a header."""
    width = max(int(sizes.max()), HEADER_SIZE)
    width += -width % WORD
    return np.array(rows, f"S{width}").view(np.uint8).reshape(len(rows), width)
