"""Offline rows as the packed rows that should be online of them, and how far two packed rows lie apart.

Nothing is written: a text that the store's dictionaries lack is packed as null, and so its row differs from any that
could be online.
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
    """What differs between n rows that are online and the n that should be."""

    features: Mapping[str, NDArray[np.bool_]]
    """Of each feature [n], whether it differs; a row that cannot be read differs in all."""
    cosine: NDArray[np.float64]
    """[n], the lowest cosine of the row's vectors that differ; NaN where none does or one is missing."""


def read_timestamps(rows: Sequence[bytes]) -> tuple[Int64, Int64]:
    """Event and created timestamps [n], microseconds since 1970 UTC, from the headers of packed rows."""
    heads = np.frombuffer(b"".join(row[:16].ljust(16, b"\0") for row in rows), "<i8").reshape(-1, 2)
    return heads[:, 0].copy(), heads[:, 1].copy()


def find_layout(row: bytes, view: View) -> Layout | None:
    """The layout that a packed row says it is of; None if the view never had one of that fingerprint."""
    return view.layouts_by_fingerprint.get(int.from_bytes(row[FINGERPRINT], "little"))


def check_readable(rows: Sequence[bytes], view: View, words: Dictionaries) -> NDArray[np.bool_]:
    """[n], whether a reader could read each row."""
    return decode_rows(rows, view.layouts_by_fingerprint, view.layout.fields, words).status != Status.FAILED


def pack_rows(layout: Layout, rows: pa.Table, event: str, created: str | None, words: Dictionaries) -> list[bytes]:
    """One packed row for each offline row.

    Args:
        rows: the layout's features under their own names, and the time stamps.
        event: name of the event timestamp's column.
        created: of the created timestamp's; None if there is none.

    Raises:
        VitrineError: a column's type does not fit its feature.
    """
    found = {field.name: columns.from_arrow(field, _known(field, rows[field.name], words)) for field in layout.fields}
    made = timestamps.to_ticks(rows[created], "us") if created else None
    return encode_rows(layout, found, timestamps.to_ticks(rows[event], "us"), made, words)


def compare_rows(online: Sequence[bytes], wanted: Sequence[bytes], view: View, words: Dictionaries) -> RowDifferences:
    """Where rows that are online differ from those that should be."""
    fields = view.layout.fields
    one, other = (decode_rows(rows, view.layouts_by_fingerprint, fields, words) for rows in (online, wanted))
    unreadable = one.status == Status.FAILED
    features: dict[str, NDArray[np.bool_]] = {}
    cosine = np.full(len(online), np.nan)
    for field in fields:
        left, right = one.columns[field.name], other.columns[field.name]
        features[field.name] = _differ(left, right) | unreadable
        if field.is_list and field.base in ("float", "double"):
            lowest = np.where(features[field.name], _cosine(left, right), np.nan)
            cosine = np.fmin(cosine, lowest)
    return RowDifferences(features, cosine)


def _known(field: Field, column: pa.ChunkedArray, words: Dictionaries) -> pa.ChunkedArray | pa.Array:
    """A column without the texts that its dictionary lacks."""
    if field.storage != "dictionary":
        return column
    there = pc.is_in(column, value_set=pa.array(words.get(field.name, ()), column.type))
    return pc.if_else(there, column, pa.scalar(None, column.type))


def _differ(left: Column, right: Column) -> NDArray[np.bool_]:
    pairs = zip(columns.to_arrow(left).to_pylist(), columns.to_arrow(right).to_pylist(), strict=True)
    return np.array([not _same(one, other) for one, other in pairs], np.bool_)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; NaN is equal to NaN."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) or (one != one and other != other)


def _cosine(left: Column, right: Column) -> NDArray[np.float64]:
    """[n], of two columns of vectors; NaN where one is missing, or their widths differ."""
    found = np.full(len(left), np.nan)
    for i, (one, other) in enumerate(
        zip(columns.to_arrow(left).to_pylist(), columns.to_arrow(right).to_pylist(), strict=True)
    ):
        if one and other and len(one) == len(other):
            length = np.linalg.norm(one) * np.linalg.norm(other)
            found[i] = np.dot(one, other) / length if length else np.nan
    return found
