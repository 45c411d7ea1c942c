"""The packed rows that should be online for given offline rows, and the differences between packed rows.

Nothing is written. A text that the store's dictionaries lack is packed as null, so that its row differs from every row
that could be online.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.arrow import columns, timestamps
from feature_repo.arrow.columns import Column
from feature_repo.arrow.field import Field
from feature_repo.online.catalog import View
from feature_repo.online.decode import Status, decode_rows
from feature_repo.online.encode import Dictionaries, encode_rows
from feature_repo.online.row_format import FINGERPRINT, Layout

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class RowDifferences:
    """The differences between n online rows and the n rows that should be online."""

    features: Mapping[str, NDArray[np.bool_]]
    """bool [n] for each feature, by name, whether it differs; an online row that cannot be decoded differs in all."""
    cosine: NDArray[np.float64]
    """[n], the lowest cosine between differing float vectors of a row. A pair has none if a vector is missing or zero,
    or if their lengths differ. NaN if no pair of the row differs, or if no differing pair has a cosine."""


def read_timestamps(rows: Sequence[bytes]) -> tuple[Int64, Int64]:
    """Return event and created timestamps from the headers of packed rows, int64 [n] each, microseconds since 1970 UTC.

    An unknown created timestamp is the smallest int64. Checksums are not verified. Bytes that a truncated row lacks are
    read as zero.
    """
    headers = np.frombuffer(b"".join(row[:16].ljust(16, b"\0") for row in rows), "<i8").reshape(-1, 2)
    return headers[:, 0].copy(), headers[:, 1].copy()


def find_layout(row: bytes, view: View) -> Layout | None:
    """Return the view's layout whose fingerprint the packed row carries; None if the view has no such layout.

    The row's checksum is not verified. A row without a whole fingerprint is read as if zeros followed.
    """
    return view.layouts_by_fingerprint.get(int.from_bytes(row[FINGERPRINT], "little"))


def check_readable(rows: Sequence[bytes], view: View, dictionaries: Dictionaries) -> NDArray[np.bool_]:
    """Return whether a reader can decode each row, bool [n]: its checksum is right, its layout and codes are known.

    Args:
        rows: n packed rows; n may be 0.
        view: has the layouts that readers know.
        dictionaries: the store's dictionaries, one for each feature of the view with storage "dictionary".
    """
    return decode_rows(rows, view.layouts_by_fingerprint, view.layout.fields, dictionaries).status != Status.FAILED


def pack_rows(
    layout: Layout,
    rows: pa.Table,
    event_timestamp: str,
    created_timestamp: str | None,
    dictionaries: Dictionaries,
) -> list[bytes]:
    """Return one packed row for each offline row, in their order.

    Args:
        layout: the layout to pack in.
        rows: must have the layout's features under their own names, and the timestamps. Repeated entities give repeated
            packed rows.
        event_timestamp: the column of the event timestamp; a null becomes the smallest int64.
        created_timestamp: the column of the created timestamp; None if there is none. A null becomes the smallest
            int64, which means unknown.
        dictionaries: the store's dictionaries; a text that they lack becomes null.

    Raises:
        InvalidInputError: a column's type or a value does not fit its feature.
        KeyError: a column is missing.
    """
    packed = {
        field.name: columns.from_arrow(field, _null_unknown_texts(field, rows[field.name], dictionaries))
        for field in layout.fields
    }
    created = timestamps.to_ticks(rows[created_timestamp], "us") if created_timestamp else None
    return encode_rows(layout, packed, timestamps.to_ticks(rows[event_timestamp], "us"), created, dictionaries)


def compare_rows(
    online: Sequence[bytes], expected: Sequence[bytes], view: View, dictionaries: Dictionaries
) -> RowDifferences:
    """Compare online rows with the rows that should be online, pair by pair. NaN equals NaN, and null equals null.

    Values are compared exactly, as readers decode them. Timestamps are not compared.

    Args:
        online: n packed rows.
        expected: n packed rows of the same entities, in the same order.
        view: its newest layout has the features that are compared; both rows may be of any of its layouts.
        dictionaries: the store's dictionaries, one for each feature with storage "dictionary".
    """
    fields = view.layout.fields
    left, right = (decode_rows(rows, view.layouts_by_fingerprint, fields, dictionaries) for rows in (online, expected))
    is_unreadable = left.status == Status.FAILED
    features: dict[str, NDArray[np.bool_]] = {}
    cosine = np.full(len(online), np.nan)
    for field in fields:
        left_column, right_column = left.columns[field.name], right.columns[field.name]
        features[field.name] = _find_differences(left_column, right_column) | is_unreadable
        if field.is_list and field.base in ("float", "double"):
            differing = np.where(features[field.name], _compute_cosines(left_column, right_column), np.nan)
            cosine = np.fmin(cosine, differing)
    return RowDifferences(features, cosine)


def _null_unknown_texts(
    field: Field, column: pa.ChunkedArray, dictionaries: Dictionaries
) -> pa.ChunkedArray | pa.Array:
    """Return a column with null in place of texts that its dictionary lacks."""
    if field.storage != "dictionary":
        return column
    is_known = pc.is_in(column, value_set=pa.array(dictionaries.get(field.name, ()), column.type))
    return pc.if_else(is_known, column, pa.scalar(None, column.type))


def _find_differences(left: Column, right: Column) -> NDArray[np.bool_]:
    """Return whether each pair of values differs, bool [n]."""
    return np.array([not _is_equal(one, other) for one, other in _pair_values(left, right)], np.bool_)


def _is_equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal; NaN equals NaN, also in lists."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    return bool(one == other) or (one != one and other != other)


def _compute_cosines(left: Column, right: Column) -> NDArray[np.float64]:
    """Return the cosine of each pair of vectors, [n]; NaN if one is missing or zero, or their lengths differ."""
    cosines = np.full(len(left), np.nan)
    for i, (one, other) in enumerate(_pair_values(left, right)):
        if one and other and len(one) == len(other):
            norms = np.linalg.norm(one) * np.linalg.norm(other)
            cosines[i] = np.dot(one, other) / norms if norms else np.nan
    return cosines


def _pair_values(left: Column, right: Column) -> list[tuple[Any, Any]]:
    """Return the values of both columns as pairs of Python values; None where missing."""
    return list(zip(columns.to_arrow(left).to_pylist(), columns.to_arrow(right).to_pylist(), strict=True))
