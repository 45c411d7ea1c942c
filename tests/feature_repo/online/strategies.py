"""Hypothesis strategies for layouts and rows of every value type of Feast."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from feature_repo.arrow.field import BINARIES, NUMBERS, TEXTS, Field
from feature_repo.online.row_format import Layout

floats32 = st.floats(width=32, allow_nan=True)
ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63) + 1, 2**63 - 1),
    "float": floats32,
    "double": st.floats(),
    "unix_timestamp": st.integers(-62_135_596_800, 253_402_300_799),
    **dict.fromkeys(TEXTS, st.text(max_size=12)),
    **dict.fromkeys(BINARIES, st.binary(max_size=12)),
}
TYPES = [*ELEMENTS, *(f"{base}{suffix}" for base in ELEMENTS for suffix in ("_list", "_set")), "map", "struct_list"]
TIMESTAMPS = st.integers(-(2**50), 2**52)


@st.composite
def fields(draw: st.DrawFn, name: str) -> Field:
    type_ = draw(st.sampled_from(TYPES))
    plain = Field(name, type_)
    storages = ["plain"]
    if plain.base in ("float", "double"):
        storages += ["float32", "float16"] + ["int8"] * plain.is_list
    if type_ in TEXTS:
        storages.append("dictionary")
    length = draw(st.sampled_from([0, 0, 1, 3])) if plain.is_list and plain.base in NUMBERS else 0
    return Field(name, type_, draw(st.sampled_from(storages)), length)


def values(field: Field) -> st.SearchStrategy[Any]:
    """Return a strategy for a value of a field, or None."""
    if field.is_message:
        return st.none() | st.binary(max_size=20)
    element = ELEMENTS[field.base]
    if field.storage == "float16":
        element = st.floats(width=16)
    elif field.storage == "float32":
        element = floats32
    elif field.storage == "int8":
        element = st.floats(-1e3, 1e3, width=32)
    if not field.is_list:
        return st.none() | element
    sizes = {"min_size": field.length, "max_size": field.length} if field.length else {"max_size": 4}
    return st.none() | st.lists(element, **sizes)


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 6) -> tuple[Layout, list[dict[str, Any]]]:
    """Draw a layout and rows of it, each a mapping from feature to value."""
    names = draw(st.lists(st.text("abcxyz_0", min_size=1, max_size=5), unique=True, max_size=6))
    layout = Layout.from_fields([draw(fields(name)) for name in names])
    row = st.fixed_dictionaries({field.name: values(field) for field in layout.fields})
    return layout, draw(st.lists(row, max_size=max_rows))


def round_to_storage(field: Field, value: Any) -> Any:
    """Return the value that is read after it was stored: rounded for int8, else unchanged."""
    if value is None or field.storage != "int8":
        return value
    largest = np.float32(max(map(abs, value), default=0) / 127)
    if largest == 0:
        return [0.0] * len(value)
    codes = np.clip(np.rint(np.array(value, field.number) / largest), -127, 127)
    return [float(np.float32(int(code) * largest)) for code in codes]
