"""Description of one feature: its value type, how it is stored, and the NumPy type of its elements."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from feature_repo.errors import InvalidInputError

NUMBERS: dict[str, np.dtype[Any]] = {
    "bool": np.dtype("?"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "float": np.dtype("<f4"),
    "double": np.dtype("<f8"),
    "unix_timestamp": np.dtype("<i8"),
}
"""Feast's value types that are numbers, and how NumPy holds them."""
TEXTS = ("string", "json", "uuid", "time_uuid", "decimal")
BINARIES = ("bytes", "pdf_bytes", "image_bytes")
FORMS = ("number", "code", "vector", "list", "bytes", "bytes_list")
STORAGES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "int8": np.dtype("i1")}
SCALE_SIZE = 4


@dataclass(frozen=True)
class Field:
    """One feature of a view."""

    name: str
    type: str
    """Feast's value type in lower case: "float_list", "string", "int64_set", ..."""
    storage: str = "plain"
    """ "plain", or for floats "float32", "float16" and (lists only) "int8", or for text "dictionary"."""
    length: int = 0
    """Elements of every list, 0 if lists differ."""
    dictionary: str = ""
    """Which dictionary the codes are of: another one after the view was dropped and made anew."""

    def __post_init__(self) -> None:
        floating = self.base in ("float", "double")
        allowed = {
            "plain": True,
            "float32": floating,
            "float16": floating,
            "int8": floating and self.is_list,
            "dictionary": self.type in TEXTS,
        }
        if not allowed.get(self.storage, False):
            raise InvalidInputError(
                f"feature `{self.name}` of type {self.type}: storage `{self.storage}` is none of "
                f"{', '.join(storage for storage, fits in allowed.items() if fits)}; change its Field's tag `storage`"
            )

    @cached_property
    def base(self) -> str:
        """The type of one element: "float" for "float_list"; "" where there are no plain elements."""
        base = self.type.removesuffix("_list").removesuffix("_set")
        return base if base in NUMBERS or base in TEXTS or base in BINARIES else ""

    @cached_property
    def is_list(self) -> bool:
        return self.base != "" and self.base != self.type

    @property
    def is_message(self) -> bool:
        """Whether it is kept as Feast's own `Value` message."""
        return self.base == ""

    @cached_property
    def number(self) -> np.dtype[Any]:
        """How NumPy holds one element in memory; only for numbers."""
        return NUMBERS[self.base]

    @cached_property
    def stored(self) -> np.dtype[Any]:
        """How one element is stored; only for numbers and codes."""
        if self.storage == "dictionary":
            return np.dtype("<u2")
        return STORAGES[self.storage] if self.storage in STORAGES else NUMBERS[self.base]

    @cached_property
    def form(self) -> str:
        """One of FORMS."""
        if self.storage == "dictionary":
            return "code"
        if self.base not in NUMBERS:
            return "bytes_list" if self.is_list else "bytes"
        if not self.is_list:
            return "number"
        return "vector" if self.length else "list"

    @cached_property
    def scale_size(self) -> int:
        """Bytes before the elements of a list."""
        return SCALE_SIZE if self.storage == "int8" else 0

    @cached_property
    def size(self) -> int:
        """Bytes in the fixed part of the row."""
        if self.form in ("number", "code"):
            return int(self.stored.itemsize)
        return self.scale_size + self.length * int(self.stored.itemsize) if self.form == "vector" else 0

    def shape(self, count: int) -> tuple[int, ...]:
        """Of `count` values in memory: [n], of lists [n, length]."""
        return (count, self.length) if self.is_list else (count,)
