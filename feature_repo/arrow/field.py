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
"""Feast's numeric value types and the NumPy type of one value in memory."""
TEXTS = ("string", "json", "uuid", "time_uuid", "decimal")
"""Feast's value types that are text."""
BINARIES = ("bytes", "pdf_bytes", "image_bytes")
"""Feast's value types that are bytes."""
FORMS = ("number", "code", "vector", "list", "bytes", "bytes_list")
"""How a field lies in a packed row, in the order of the row (online/row_format.py)."""
STORAGES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "int8": np.dtype("i1")}
"""Quantized storages of floats and the type of one stored element."""
SCALE_SIZE = 4
"""Bytes of the float32 scale before int8 elements."""


@dataclass(frozen=True)
class Field:
    """One feature of a view: its name, its value type, and how its values are stored in a packed row.

    Raises:
        InvalidInputError: the storage is unknown or does not fit the type. An unknown type is no error: its values
            count as serialized messages.
    """

    name: str
    """Name of the feature in its view."""
    type: str
    """Feast's value type in lower case: "float_list", "string", "int64_set", ..."""
    storage: str = "plain"
    """The default "plain" fits every type. Single floats and lists of floats can have "float32" or "float16", lists of
    floats also "int8". Single texts, but not lists of texts, can have "dictionary". A set counts as a list."""
    length: int = 0
    """Number of elements of every present list; 0 if the lists may differ in length or the field is no list."""
    dictionary: str = ""
    """Id of the dictionary that the codes refer to; "" without codes. A view that is dropped and created again gets a
    new one."""

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
                f"feature `{self.name}` of type {self.type}: storage `{self.storage}` is not one of "
                f"{', '.join(storage for storage, fits in allowed.items() if fits)}; change its Field's tag `storage`"
            )

    @cached_property
    def base(self) -> str:
        """Feast's type of one element: "float" for "float", "float_list" and "float_set".

        "" for maps, structs, nested and zoned values.
        """
        base = self.type.removesuffix("_list").removesuffix("_set")
        return base if base in NUMBERS or base in TEXTS or base in BINARIES else ""

    @cached_property
    def is_list(self) -> bool:
        """Whether a value is a list or set of numbers, texts or bytes. False for a list of maps: it is a message."""
        return self.base != "" and self.base != self.type

    @property
    def is_message(self) -> bool:
        """Whether values are stored as serialized `Value` messages of Feast: maps, structs, nested and zoned values."""
        return self.base == ""

    @cached_property
    def number(self) -> np.dtype[Any]:
        """NumPy type of one element in memory, whatever the storage.

        Only for numbers and lists of numbers; other fields raise KeyError.
        """
        return NUMBERS[self.base]

    @cached_property
    def stored(self) -> np.dtype[Any]:
        """NumPy type of one element in the packed row; uint16 for dictionary codes.

        Only for numbers, lists of numbers and dictionary codes; any other field raises KeyError.
        """
        if self.storage == "dictionary":
            return np.dtype("<u2")
        return STORAGES[self.storage] if self.storage in STORAGES else NUMBERS[self.base]

    @cached_property
    def form(self) -> str:
        """How the field lies in a packed row: one of FORMS.

        Returns:
            "number": one number. "code": the dictionary code of a text. "vector": a list of numbers of fixed length.
            "list": a list of numbers of any length. "bytes": one text, one bytes value or one serialized message.
            "bytes_list": a list of texts or bytes.
        """
        if self.storage == "dictionary":
            return "code"
        if self.base not in NUMBERS:
            return "bytes_list" if self.is_list else "bytes"
        if not self.is_list:
            return "number"
        return "vector" if self.length else "list"

    @cached_property
    def scale_size(self) -> int:
        """Bytes of the scale before the elements of a list: SCALE_SIZE with the storage "int8", else 0."""
        return SCALE_SIZE if self.storage == "int8" else 0

    @cached_property
    def size(self) -> int:
        """Bytes of a value in the fixed part of a packed row, with the scale; 0 for a field of varying length."""
        if self.form in ("number", "code"):
            return int(self.stored.itemsize)
        return self.scale_size + self.length * int(self.stored.itemsize) if self.form == "vector" else 0

    def shape(self, count: int) -> tuple[int, ...]:
        """Return the NumPy shape of `count` values: (count,), for lists (count, length); length 0 if lists differ."""
        return (count, self.length) if self.is_list else (count,)
