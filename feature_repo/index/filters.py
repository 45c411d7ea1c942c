"""Which products a search may return: by category, price, brand, tags and stock."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.errors import InvalidInputError
from feature_repo.schema import CATEGORY_SEPARATOR

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ProductFilter:
    """Conditions that a product must meet, all of them. A null value meets no condition.

    Raises:
        InvalidInputError: a price is negative or not a number, the lowest price is above the highest, or there is no
            such tag.
    """

    categories: tuple[str, ...] = ()
    """Paths of categories, or names of their levels; a product is in one of them or below it. Empty: any."""
    brands: tuple[str, ...] = ()
    """Empty: any."""
    price_min: float | None = None
    """Inclusive."""
    price_max: float | None = None
    """Inclusive."""
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Tag of schema.TAGS -> the value that was predicted."""
    in_stock: bool = False
    """Only products that the shop says to have in stock."""

    def __post_init__(self) -> None:
        for name, price in (("lowest", self.price_min), ("highest", self.price_max)):
            if price is not None and not price >= 0:
                raise InvalidInputError(f"the {name} price is {price}; expected a number of at least 0")
        if self.price_min is not None and self.price_max is not None and self.price_min > self.price_max:
            raise InvalidInputError(
                f"the lowest price {self.price_min} is above the highest {self.price_max}; swap them"
            )
        if unknown := sorted(set(self.tags) - set(schema.TAGS)):
            raise InvalidInputError(f"there is no tag {', '.join(unknown)}; expected one of {', '.join(schema.TAGS)}")

    @property
    def is_empty(self) -> bool:
        """Whether every product meets it."""
        return self == ProductFilter()


class FilterColumns:
    """The columns of n rows as arrays on which filters are fast; each array is made at its first use."""

    def __init__(self, rows: pa.Table) -> None:
        """Wrap n rows of INDEX_ROWS."""
        self._rows = rows
        self._codes: dict[str, tuple[NDArray[np.int32], list[str], NDArray[np.int64], NDArray[np.int64]]] = {}
        self._prices: NDArray[np.float64] | None = None
        self._in_stock: Bools | None = None

    def select(self, where: ProductFilter) -> NDArray[np.int64]:
        """Return the rows that meet a filter, ascending."""
        rows: NDArray[np.int64] | None = None
        if where.categories:
            rows = self._find_values("category", lambda value: any(_is_in(value, one) for one in where.categories))
        if where.brands:
            rows = self._narrow(rows, "brand", set(where.brands))
        for tag, value in where.tags.items():
            rows = self._narrow(rows, f"tag_{tag}", {value})
        if where.price_min is not None or where.price_max is not None:
            prices = self._read_prices() if rows is None else self._read_prices()[rows]
            low = 0 if where.price_min is None else where.price_min
            met = (prices >= low) & (prices <= (np.inf if where.price_max is None else where.price_max))
            rows = np.flatnonzero(met) if rows is None else rows[met]
        if where.in_stock:
            met = self._read_in_stock()
            rows = np.flatnonzero(met) if rows is None else rows[met[rows]]
        return np.arange(self._rows.num_rows) if rows is None else rows

    def list_values(self, name: str) -> list[str]:
        """Return the distinct texts of a column, nulls left out."""
        return self._read_codes(name)[1]

    def _narrow(self, rows: NDArray[np.int64] | None, name: str, values: set[str]) -> NDArray[np.int64]:
        """Return those of `rows` whose text is one of `values`, ascending; None as `rows` stands for all rows."""
        if rows is None:
            return self._find_values(name, lambda value: value in values)
        codes, texts, _, _ = self._read_codes(name)
        wanted = [code for code, text in enumerate(texts) if text in values]
        return rows[np.isin(codes[rows], wanted)]

    def _find_values(self, name: str, is_wanted: Callable[[str], bool]) -> NDArray[np.int64]:
        """Return the rows whose text `is_wanted`, ascending; it is called once for each distinct text."""
        _, texts, order, starts = self._read_codes(name)
        parts = [order[starts[code] : starts[code + 1]] for code, text in enumerate(texts) if is_wanted(text)]
        return parts[0] if len(parts) == 1 else np.sort(np.concatenate([np.empty(0, np.int64), *parts]))

    def _read_codes(self, name: str) -> tuple[NDArray[np.int32], list[str], NDArray[np.int64], NDArray[np.int64]]:
        """Return a column's codes [n], -1 for null; its texts; the rows sorted by code; and where each code begins."""
        if name not in self._codes:
            encoded = self._rows[name].combine_chunks().dictionary_encode()
            codes = encoded.indices.fill_null(-1).to_numpy()
            order = np.argsort(codes, kind="stable")
            starts = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
            self._codes[name] = codes, encoded.dictionary.to_pylist(), order, starts
        return self._codes[name]

    def _read_prices(self) -> NDArray[np.float64]:
        if self._prices is None:
            self._prices = self._rows["price"].fill_null(np.nan).to_numpy()
        return self._prices

    def _read_in_stock(self) -> Bools:
        if self._in_stock is None:
            self._in_stock = pc.fill_null(self._rows["in_stock"], False).to_numpy()
        return self._in_stock


def _is_in(path: str, category: str) -> bool:
    """Return whether `path` is `category` or below it; `category` is a path, or the name of one level."""
    return (
        path == category or path.startswith(category + CATEGORY_SEPARATOR) or category in path.split(CATEGORY_SEPARATOR)
    )
