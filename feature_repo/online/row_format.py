"""How the packed row of one feature view is laid out: what a reader in any language must know.

One row holds all features of one entity in one view. All numbers are little-endian, nothing is aligned:

    offset  bytes       what
    0       8           event timestamp: int64, microseconds since 1970-01-01 UTC
    8       8           created timestamp: int64, likewise; the smallest int64 if it is unknown
    16      4           fingerprint of the layout: uint32, as in the project's record
    20      4           checksum: uint32 (see checksum.py)
    24      ceil(f/8)   null mask: bit i % 8 of byte i // 8 is set where field i is null (f fields)
            ...         fixed fields, in the layout's order; zeros where null
            4 each      a uint32 for each varying field: a list's number of elements, else the number of bytes
            ...         varying fields, in the layout's order: lists of numbers first, then bytes
            0-7         zeros, up to a multiple of 8

    form        fields                                      bytes
    number      bool 1, int32 4, int64 8, float 4,          fixed; bool is 0 or 1, timestamps are seconds
                double 8, unix_timestamp 8
    code        text with storage "dictionary"              fixed: uint16, its place in the field's dictionary
    vector      lists of numbers, all of one length         fixed: the elements; int8: a float32 scale before them
    list        lists and sets of numbers                   varying: likewise, nothing where there is no element
    bytes       string, json, uuid, decimal, bytes, ...     varying: UTF-8 or the bytes themselves
    bytes_list  lists and sets of those                     varying: uint32 count, a uint32 length each, the bytes
    bytes       maps, structs, nested and zoned values      varying: Feast's `Value` message, serialized

Storage "float16" and "float32" are the IEEE forms of a float or double; an int8 element stands for element * scale.
The fields of a layout are ordered by form (as above), then by size (largest first), then by name. The fingerprint is
the first 4 bytes of the SHA-256 of the layout's JSON, so a field that is added, removed or stored otherwise makes
another layout; every layout that rows were written in stays in the project's record (see record.py).
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from feature_repo.arrow import timestamps
from feature_repo.arrow.field import FORMS, Field

HEADER_SIZE = 24
NO_CREATED_TIMESTAMP = timestamps.NEVER
MAX_DICTIONARY_SIZE = 65_535
"""Different texts that a dictionary holds."""


@dataclass(frozen=True)
class Layout:
    """The fields of a row, in the order in which they stand."""

    fields: tuple[Field, ...]

    @staticmethod
    def from_fields(fields: Iterable[Field]) -> "Layout":
        """The layout of `fields`, whatever the order they come in."""
        return Layout(tuple(sorted(fields, key=lambda field: (FORMS.index(field.form), -field.size, field.name))))

    @cached_property
    def fingerprint(self) -> int:
        text = json.dumps(self.to_json(), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")

    @cached_property
    def fields_by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}

    @cached_property
    def position(self) -> dict[str, int]:
        """Which bit of the null mask is a field's."""
        return {field.name: i for i, field in enumerate(self.fields)}

    @cached_property
    def offset(self) -> dict[str, int]:
        """Where a fixed field begins; of a varying one, where its uint32 stands."""
        offsets, at = {}, HEADER_SIZE + self.mask_size
        for field in self.fields:
            offsets[field.name] = at
            at += field.size if field.size else 4
        return offsets

    @cached_property
    def mask_size(self) -> int:
        return (len(self.fields) + 7) // 8

    @cached_property
    def prefix_size(self) -> int:
        """Bytes before the varying fields."""
        return HEADER_SIZE + self.mask_size + sum(field.size if field.size else 4 for field in self.fields)

    @cached_property
    def codes(self) -> tuple[Field, ...]:
        """The fields that are codes of texts; they stand side by side."""
        return tuple(field for field in self.fields if field.form == "code")

    @cached_property
    def lists(self) -> tuple[Field, ...]:
        """The varying lists of numbers."""
        return tuple(field for field in self.fields if field.form == "list")

    @cached_property
    def texts(self) -> tuple[Field, ...]:
        """The fields that are varying bytes."""
        return tuple(field for field in self.fields if field.form in ("bytes", "bytes_list"))

    def to_json(self) -> list[dict[str, Any]]:
        """The fields, without what is as it is by default."""
        default = Field("", "bytes")
        return [
            {
                key: value
                for key, value in asdict(field).items()
                if key in ("name", "type") or value != getattr(default, key)
            }
            for field in self.fields
        ]

    @staticmethod
    def from_json(fields: Iterable[dict[str, Any]]) -> "Layout":
        return Layout(tuple(Field(**field) for field in fields))
